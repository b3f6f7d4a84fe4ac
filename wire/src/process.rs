//! Whose the local end of a flow is.

use prost::Message;

/// A program that runs on the sensor's host. A field that is not known is empty. Processes of one program that
/// run in one place are told as one: no process id is in it.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Process {
    /// The kernel's name of the task, at most 15 octets.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Path of the file that runs.
    #[prost(string, tag = "2")]
    pub executable: String,
    /// Id of the container: 64 hexadecimal digits with the usual runtimes.
    #[prost(string, tag = "3")]
    pub container: String,
    /// The unit of the service manager, such as `nginx.service`.
    #[prost(string, tag = "4")]
    pub unit: String,
}
