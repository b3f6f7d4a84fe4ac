//! The control plane's configuration: any text is a configuration or an error that says something, also
//! with settings of the environment over it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_control_plane::config::{ENV_PREFIX, Overrides, load};

fuzz_target!(|input: &str| {
    let (text, lines) = input.split_once('\0').unwrap_or((input, ""));
    let variables = lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("{ENV_PREFIX}{name}"), value.to_owned()));
    let flags = Overrides { config: Some(weir_fuzz::file(text)), ..Overrides::default() };
    match load(&flags, variables) {
        Ok(config) => assert!(!format!("{config:?}").is_empty(), "it prints"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
