DROP TABLE alert_silence;
DROP TABLE alert_delivery;
DROP TABLE alert_notice;
DROP TABLE alert;
DROP TABLE alert_route;
DROP TABLE alert_rule;
DROP TABLE alert_receiver;
