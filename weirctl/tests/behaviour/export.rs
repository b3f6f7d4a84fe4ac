//! A8: exports are the server's file, whole or not there.

use crate::program::Program;
use crate::support::{Plane, batch, mixed_flows, recent_minute_ns};

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_whole_files_in_every_format() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    let program = Program::of(&plane);
    let lines = program.admin(&["export"]).await.json();
    assert_eq!(lines.len(), 41);
    for format in ["csv", "ndjson", "parquet"] {
        let file = program.path("flows");
        let path = file.to_str().expect("text");
        let exported = program.admin(&["export", "--format", format, "--output", path]).await;
        assert_eq!(
            (exported.code, exported.out.as_str(), exported.err.as_str()),
            (0, "", ""),
            "{exported:?}"
        );
        let bytes = std::fs::read(&file).expect("it is there");
        match format {
            "parquet" => assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")),
            "csv" => assert_eq!(String::from_utf8(bytes).expect("text").lines().count(), 42),
            _ => assert_eq!(String::from_utf8(bytes).expect("text").lines().count(), 41),
        }
        assert!(!program.path("flows.part").exists());
    }
    let wrong = program.path("wrong");
    let refused =
        program.admin(&["export", "--filter", "nonsense", "--output", wrong.to_str().expect("text")]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(!wrong.exists());
}
