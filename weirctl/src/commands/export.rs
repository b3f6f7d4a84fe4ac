//! `export`: a file, streamed.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use super::{Caller, window};
use crate::cli::{ExportArgs, Format, word};
use crate::client::{ClientError, route};
use crate::show::{self, octets};

/// Time between two words of progress.
const PROGRESS: Duration = Duration::from_millis(500);

pub async fn export(caller: &Caller, args: &ExportArgs) -> Result<(), ClientError> {
    let to_terminal = args.output.is_none() && io::stdout().is_terminal();
    if to_terminal && args.format == Format::Parquet {
        return Err(ClientError::Usage("Parquet is not for a terminal: give --output FILE".to_owned()));
    }
    let mut query = window(&args.window);
    query.push(("format", word(&args.format)));
    query.extend(args.limit.map(|limit| ("limit", limit.to_string())));
    let mut response = caller.client.open(route::EXPORT, &query).await?;
    // The file appears when it is whole: an export that broke off is not taken for one.
    let unfinished = args.output.as_ref().map(|path| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        path.with_file_name(name)
    });
    let mut writer: Box<dyn Write> = match &unfinished {
        Some(path) => {
            let file = File::create(path).map_err(|error| ClientError::File { path: path.clone(), error })?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(io::stdout().lock()),
    };
    let (mut written, mut told) = (0_i64, Instant::now());
    let progress = io::stderr().is_terminal() && !to_terminal;
    let mut line = Vec::new();
    while let Some(chunk) = caller.client.chunk(&mut response).await? {
        written += chunk.len() as i64;
        if to_terminal {
            // Whole lines only: a character may be in two chunks.
            line.extend_from_slice(&chunk);
            let Some(end) = line.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = line.split_off(end + 1);
            let text = String::from_utf8_lossy(&line).lines().map(show::safe).collect::<Vec<_>>().join("\n");
            writeln!(writer, "{text}").map_err(ClientError::Write)?;
            line = rest;
        } else {
            writer.write_all(&chunk).map_err(ClientError::Write)?;
        }
        if progress && told.elapsed() > PROGRESS {
            told = Instant::now();
            let _ = write!(io::stderr(), "\r{}   ", octets(written));
        }
    }
    writer.flush().map_err(ClientError::Write)?;
    drop(writer);
    if let (Some(unfinished), Some(path)) = (unfinished, &args.output) {
        std::fs::rename(&unfinished, path)
            .map_err(|error| ClientError::File { path: path.clone(), error })?;
    }
    if progress {
        let _ = writeln!(io::stderr(), "\r{} written", octets(written));
    }
    Ok(())
}
