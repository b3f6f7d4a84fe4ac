//! `openapi`: the document that the server serves.

use std::io::Write as _;

use anyhow::Context as _;
use weir_control_plane::api;

pub fn run() -> anyhow::Result<()> {
    let text = api::document().to_pretty_json().context("write the document as JSON")?;
    writeln!(std::io::stdout().lock(), "{text}").context("print the document")
}
