DROP TABLE stream_ticket;
