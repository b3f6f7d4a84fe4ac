//! The routes that are asked, each with what it is asked with and what it answers. A test holds every word of this
//! against the document that the server serves.

/// One operation of the document.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// Query parameters that are given
    pub parameters: &'static [&'static str],
    /// Schema of the body that is sent
    pub body: Option<&'static str>,
    /// Schema of the answer, where it is JSON
    pub answer: Option<&'static str>,
}

const fn get(path: &'static str, parameters: &'static [&'static str], answer: &'static str) -> Route {
    Route { method: "get", path, parameters, body: None, answer: Some(answer) }
}

const fn post(path: &'static str, body: Option<&'static str>, answer: &'static str) -> Route {
    Route { method: "post", path, parameters: &[], body, answer: Some(answer) }
}

const fn put(path: &'static str, body: &'static str, answer: &'static str) -> Route {
    Route { method: "put", path, parameters: &[], body: Some(body), answer: Some(answer) }
}

const fn delete(path: &'static str, answer: &'static str) -> Route {
    Route { method: "delete", path, parameters: &[], body: None, answer: Some(answer) }
}

const PAGED: &[&str] = &["limit", "continuation"];
const EVENTS: &[&str] = &["after", "topic", "sensor"];

pub const LOGIN: Route = post("/api/v1/auth/login", Some("Login"), "Tokens");
pub const REFRESH: Route = post("/api/v1/auth/refresh", Some("Refresh"), "Tokens");
pub const LOGOUT: Route = post("/api/v1/auth/logout", None, "Ended");
pub const ME: Route = get("/api/v1/auth/me", &[], "Me");
pub const SENSORS: Route = get("/api/v1/sensors", &["limit", "continuation"], "SensorPage");
pub const FLOWS: Route =
    get("/api/v1/flows", &["from", "to", "filter", "sensor", "limit", "continuation"], "Page");
pub const TOP: Route =
    get("/api/v1/flows/top", &["from", "to", "filter", "sensor", "by", "metric", "limit"], "Top");
pub const DETECTIONS: Route =
    get("/api/v1/detections", &["state", "severity", "kind", "limit", "continuation"], "DetectionPage");
pub const ACKNOWLEDGE: Route = post("/api/v1/detections/{detection}/acknowledge", None, "Detection");
pub const DISMISS: Route = post("/api/v1/detections/{detection}/dismiss", Some("Dismissal"), "Detection");
pub const REOPEN: Route = post("/api/v1/detections/{detection}/reopen", None, "Detection");
pub const DOMAINS: Route = get("/api/v1/domains", &["q", "limit", "continuation"], "DomainPage");
pub const ALERTS: Route = get("/api/v1/alerts", &["state", "severity", "limit", "continuation"], "AlertPage");
pub const REPLAY: Route =
    get("/api/v1/events", &["after", "topic", "sensor", "limit", "continuation"], "EventPage");
pub const STREAM: Route =
    Route { method: "get", path: "/api/v1/events/stream", parameters: EVENTS, body: None, answer: None };
pub const EXPORT: Route = Route {
    method: "get",
    path: "/api/v1/flows/export",
    parameters: &["from", "to", "filter", "sensor", "format", "limit"],
    body: None,
    answer: None,
};
pub const SENSOR_SETTINGS: Route = get("/api/v1/sensors/{id}/configuration", &[], "SensorConfiguration");
pub const PUT_SENSOR_SETTINGS: Route =
    put("/api/v1/sensors/{id}/configuration", "ConfigurationRequest", "ConfigurationVersion");
pub const SENSOR_VERSIONS: Route =
    get("/api/v1/sensors/{id}/configuration/versions", PAGED, "ConfigurationPage");
pub const SENSOR_BACK: Route =
    post("/api/v1/sensors/{id}/configuration/rollback", Some("RollbackRequest"), "ConfigurationVersion");
pub const GROUP_SETTINGS: Route =
    get("/api/v1/sensor-groups/{group}/configuration", &[], "GroupConfiguration");
pub const PUT_GROUP_SETTINGS: Route =
    put("/api/v1/sensor-groups/{group}/configuration", "ConfigurationRequest", "ConfigurationVersion");
pub const GROUP_VERSIONS: Route =
    get("/api/v1/sensor-groups/{group}/configuration/versions", PAGED, "ConfigurationPage");
pub const GROUP_BACK: Route = post(
    "/api/v1/sensor-groups/{group}/configuration/rollback",
    Some("RollbackRequest"),
    "ConfigurationVersion",
);
pub const NETWORKS: Route = get("/api/v1/networks", PAGED, "NetworkPage");
pub const ADD_NETWORK: Route = post("/api/v1/networks", Some("NewNetwork"), "Network");
pub const REMOVE_NETWORK: Route = delete("/api/v1/networks/{network}", "Network");

pub const DEVICES: Route = get(
    "/api/v1/devices",
    &["site", "sensor", "type", "vendor", "name", "address", "limit", "continuation"],
    "DevicePage",
);
pub const DEVICE: Route = get("/api/v1/devices/{device}", &[], "DeviceDetail");
pub const SET_DEVICE: Route = Route {
    method: "patch",
    path: "/api/v1/devices/{device}",
    parameters: &[],
    body: Some("DeviceChange"),
    answer: Some("Device"),
};
pub const MERGE_DEVICES: Route = post("/api/v1/devices/{device}/merge", Some("Merge"), "Device");
pub const SPLIT_DEVICE: Route = post("/api/v1/devices/{device}/split", Some("Split"), "SplitDevices");
pub const PLAN_ERASURE: Route = Route {
    method: "delete",
    path: "/api/v1/devices/{device}",
    parameters: &["erase"],
    body: None,
    answer: Some("ErasurePlan"),
};
/// Answers with 202.
pub const ERASE_DEVICE: Route = Route {
    method: "delete",
    path: "/api/v1/devices/{device}",
    parameters: &["erase", "confirmation"],
    body: None,
    answer: None,
};

/// All of them.
pub const ALL: [Route; 34] = [
    LOGIN,
    REFRESH,
    LOGOUT,
    ME,
    SENSORS,
    FLOWS,
    TOP,
    DETECTIONS,
    ACKNOWLEDGE,
    DISMISS,
    REOPEN,
    DOMAINS,
    ALERTS,
    REPLAY,
    STREAM,
    EXPORT,
    SENSOR_SETTINGS,
    PUT_SENSOR_SETTINGS,
    SENSOR_VERSIONS,
    SENSOR_BACK,
    GROUP_SETTINGS,
    PUT_GROUP_SETTINGS,
    GROUP_VERSIONS,
    GROUP_BACK,
    NETWORKS,
    ADD_NETWORK,
    REMOVE_NETWORK,
    DEVICES,
    DEVICE,
    SET_DEVICE,
    MERGE_DEVICES,
    SPLIT_DEVICE,
    PLAN_ERASURE,
    ERASE_DEVICE,
];
