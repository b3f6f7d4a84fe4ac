//! The sensor's configuration: any text is a configuration or an error that says something; what is printed
//! of a configuration reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_sensor::config::{Config, Overrides};

fuzz_target!(|input: &str| {
    let none = Overrides::default();
    // With flags, if there is a second part: each line of it is a `--set`.
    let (text, flags) = input.split_once('\0').unwrap_or((input, ""));
    let overrides =
        Overrides { settings: flags.lines().map(str::to_owned).collect(), ..Overrides::default() };
    let config = match Config::load(Some(&weir_fuzz::file(text)), &overrides) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let _ = config.kernel_settings();
    let printed = config.to_toml().expect("a configuration prints");
    let again = Config::load(Some(&weir_fuzz::file(&printed)), &none)
        .unwrap_or_else(|error| panic!("what was printed does not load: {error}\n{printed}"));
    assert_eq!(again.to_toml().expect("it prints again"), printed);
});
