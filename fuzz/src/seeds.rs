//! Writes what the fuzz targets start from: `seeds WORKSPACE CAPTURES CORPUS`.
//!
//! Frames and captures are the test captures' own; batches are small ones of ours; configurations are the
//! examples that operators get.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use prost::Message as _;
use weir_sensor::capture::{Capture, LinkType};
use weir_wire::{Batch, Flow, LinkStack, NameSource, Place, Point, VERSION, encode};

/// Frames of one capture: most are alike.
const FRAMES_EACH: usize = 25;
/// A larger capture only costs time.
const LARGEST_CAPTURE: u64 = 16 << 10;

/// Threat lists: the first byte says how they are read.
const LISTS: [&[u8]; 4] = [
    b"\x00# x\n192.0.2.0/24 ; a\n192.0.2.3-192.0.2.9\n0.0.0.0 bad.example.org\n||x.example^\n*.y.example\n2001:db8::/32\n",
    b"\x01seen,ip\n1,192.0.2.1\n\"2\",\"198.51.100.0/24\"\n",
    b"\x02# c\n1,192.0.2.1:80\n2,bad.example.org\n",
    b"\x03{\"type\":\"bundle\",\"objects\":[{\"type\":\"indicator\",\"pattern\":\"[ipv4-addr:value = '192.0.2.1' OR domain-name:value = 'bad.example.org']\"}]}",
];

fn main() -> Result<(), Box<dyn Error>> {
    let [workspace, captures, corpus] = std::env::args_os()
        .skip(1)
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: seeds WORKSPACE CAPTURES CORPUS")?;
    for entry in fs::read_dir(captures)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pcap") {
            frames(&path, &corpus)?;
            conversations(&path, &corpus)?;
            if path.metadata()?.len() <= LARGEST_CAPTURE {
                put(&corpus, "capture", &stem(&path), &fs::read(&path)?)?;
            }
        }
    }
    for (place, list) in LISTS.iter().enumerate() {
        put(&corpus, "threat-list", &format!("{place}"), list)?;
    }
    for (place, batch) in batches().iter().enumerate() {
        put(&corpus, "ingest", &format!("zstd-{place}"), &[&[0], encode(batch)?.as_slice()].concat())?;
        put(
            &corpus,
            "ingest",
            &format!("plain-{place}"),
            &[&[1], batch.encode_to_vec().as_slice()].concat(),
        )?;
    }
    for entry in fs::read_dir(workspace.join("deploy/config"))? {
        let path = entry?.path();
        let text = fs::read(&path)?;
        for target in ["sensor-config", "control-plane-config"] {
            put(&corpus, target, &stem(&path), &text)?;
        }
    }
    put(&corpus, "sensor-config", "defaults", weir_sensor::config::Config::default().to_toml()?.as_bytes())?;
    Ok(())
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn put(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{name}")), bytes)?;
    Ok(())
}

/// The first frames of a capture behind their lengths: hellos take several.
fn conversations(path: &Path, corpus: &Path) -> Result<(), Box<dyn Error>> {
    let mut capture = Capture::open(File::open(path)?)?;
    let mut frames = vec![0];
    for _ in 0..FRAMES_EACH {
        let Ok(Some(frame)) = capture.next_frame() else { break };
        let Ok(octets) = u16::try_from(frame.bytes.len()) else { continue };
        if frame.link != LinkType::Ethernet || frames.len() + frame.bytes.len() > LARGEST_CAPTURE as usize {
            break;
        }
        frames.extend_from_slice(&octets.to_be_bytes());
        frames.extend_from_slice(frame.bytes);
    }
    put(corpus, "observe", &stem(path), &frames)
}

/// Ethernet frames as they are, and their packets as a device without link headers has them.
fn frames(path: &Path, corpus: &Path) -> Result<(), Box<dyn Error>> {
    let mut capture = Capture::open(File::open(path)?)?;
    for place in 0..FRAMES_EACH {
        let Ok(Some(frame)) = capture.next_frame() else { break };
        if frame.link != LinkType::Ethernet {
            break;
        }
        let name = format!("{}-{place}", stem(path));
        put(corpus, "parser", &name, &[&[0], frame.bytes].concat())?;
        if place % 8 == 0 && frame.bytes.len() > 14 {
            put(corpus, "parser", &format!("{name}-ip"), &[&[1], &frame.bytes[14..]].concat())?;
        }
    }
    Ok(())
}

fn batches() -> Vec<Batch> {
    const NOW_NS: i64 = 1_767_225_600_000_000_000;
    let flow = Flow {
        ip_version: 4,
        src_low: 0xc000_0201,
        dst_low: 0xc633_6402,
        protocol: 6,
        src_port: 50_000,
        dst_port: 443,
        packets: 10,
        octets: 5_000,
        reverse_packets: 8,
        reverse_octets: 9_000,
        point: 1,
        ..Flow::default()
    };
    let empty = Batch {
        version: VERSION,
        generation: vec![7; 16],
        epoch: 3,
        parts: 1,
        window_start_ns: NOW_NS,
        window_end_ns: NOW_NS + 5_000_000_000,
        sampling_interval: 1,
        points: vec![Point { id: 1, interface: "eth0".to_owned(), ..Point::default() }],
        ..Batch::default()
    };
    let links = vec![LinkStack { headers: vec![weir_wire::link::VLAN | 10] }];
    let tagged = Flow { link: 1, ip_version: 6, src_high: 1 << 61, dst_high: 1 << 61, ..flow.clone() };
    vec![
        Batch { flows: vec![flow.clone()], ..empty.clone() },
        Batch { flows: vec![flow.clone(), tagged], links, ..empty.clone() },
        Batch {
            flows: vec![Flow { name: 1, name_source: NameSource::Tls.into(), dst_place: 1, ..flow }],
            names: vec!["www.example.org".to_owned()],
            places: vec![Place { country: "NL".to_owned(), asn: 64_496, organisation: "Example".to_owned() }],
            ..empty.clone()
        },
        empty,
    ]
}
