//! From a file, the environment and flags to a checked [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Table, Value};

use super::{Config, ConfigError, LogFormat};

/// `WEIR_CONTROL_PLANE__DATABASE__URL` sets `database.url`.
pub const ENV_PREFIX: &str = "WEIR_CONTROL_PLANE__";

/// What flags may set, over file and environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// Settings as TOML
    #[arg(long, value_name = "FILE", env = "WEIR_CONTROL_PLANE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address to listen on, instead of `listen`; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// File with the Postgres URL, instead of `database.url_file`
    #[arg(long, value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// File with the operators' token, instead of `auth.admin_token_file`
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Serve HTTPS with a certificate of its own making, for a first try: `tls.self_signed`
    #[arg(long)]
    pub tls_self_signed: bool,
    /// Log level or directives, instead of `log.level`
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log format, instead of `log.format`
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Reads the file, then the given environment, then the flags, and checks the whole.
pub fn load(
    flags: &Overrides,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut table = match &flags.config {
        None => Table::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::one(format!("read {}: {error}", path.display())))?;
            toml::from_str(&text).map_err(|error| ConfigError::one(format!("{}: {error}", path.display())))?
        }
    };
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix(ENV_PREFIX) {
            set(&mut table, &key.to_ascii_lowercase(), &name, typed(&value))?;
        }
    }
    let mut config: Config = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let message = error.inner().message().to_owned();
        ConfigError::one(format!("{key}: {message}"))
    })?;
    apply(flags, &mut config);
    let broken = config.validate();
    if broken.is_empty() { Ok(config) } else { Err(ConfigError(broken)) }
}

fn apply(flags: &Overrides, config: &mut Config) {
    if let Some(listen) = flags.listen {
        config.listen = listen;
    }
    if let Some(path) = &flags.database_url_file {
        config.database.url = None;
        config.database.url_file = Some(path.clone());
    }
    if let Some(path) = &flags.admin_token_file {
        config.auth.admin_token_file = Some(path.clone());
    }
    if flags.tls_self_signed {
        config.tls.self_signed = true;
    }
    if let Some(level) = &flags.log_level {
        config.log.level.clone_from(level);
    }
    if let Some(format) = flags.log_format {
        config.log.format = format;
    }
}

/// Puts a value at `a__b__c`, making the tables on the way.
fn set(table: &mut Table, key: &str, name: &str, value: Value) -> Result<(), ConfigError> {
    match key.split_once("__") {
        None => {
            // A URL in the environment replaces a URL file of the configuration file, and the reverse.
            match key {
                "url" => table.remove("url_file"),
                "url_file" => table.remove("url"),
                _ => None,
            };
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => set(inner, rest, name, value),
                _ => Err(ConfigError::one(format!("{head}: {name} needs it to be a table"))),
            }
        }
    }
}

/// The environment has only text; TOML wants types. Arrays are written as in TOML.
fn typed(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return Value::Integer(number);
    }
    if let Ok(flag) = text.parse::<bool>() {
        return Value::Boolean(flag);
    }
    if text.starts_with('[')
        && let Ok(table) = toml::from_str::<Table>(&format!("value = {text}"))
        && let Some(Value::Array(array)) = table.get("value")
    {
        return Value::Array(array.clone());
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        load(&Overrides { config: Some(file.path().to_owned()), ..Overrides::default() }, [])
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = from_file("[database]\npoolsize = 3").expect_err("no such key").to_string();
        assert!(error.contains("database.poolsize"), "{error}");
        let error = load(&Overrides::default(), environment(&[("WEIR_CONTROL_PLANE__INGESTION__X", "1")]))
            .expect_err("no such table")
            .to_string();
        assert!(error.contains("ingestion"), "{error}");
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_key() {
        let error = from_file("[ingest]\nmax_concurrent = \"many\"").expect_err("not a number").to_string();
        assert!(error.contains("ingest.max_concurrent"), "{error}");
        let error = from_file("listen = \"nowhere\"").expect_err("not an address").to_string();
        assert!(error.contains("listen"), "{error}");
    }

    #[test]
    fn rules_between_keys_are_checked_as_a_whole() {
        let error = from_file("[retention]\nflows_days = 3\nledger_days = 0\n[log]\nlevel = \"a=b=c\"")
            .expect_err("four rules are broken")
            .to_string();
        for key in ["retention.flows_days", "retention.ledger_days", "log.level", "ingest.max_past_days"] {
            assert!(error.contains(key), "{key} in {error}");
        }
    }

    #[test]
    fn names_of_services_are_checked_and_each_port_has_one() {
        let config = from_file("[services]\n\"tcp/8443\" = \"admin-console\"\n\"132/2905\" = \"m3ua.2\"")
            .expect("valid");
        assert_eq!(config.services.0["tcp/8443"], "admin-console");
        let wrong =
            "[services]\n\"tcp/70000\" = \"a\"\n\"x/1\" = \"a\"\n\"udp/53\" = \"DNS\"\n\"17/53\" = \"dns\"";
        let error = from_file(wrong).expect_err("four faults").to_string();
        for part in
            ["`tcp/70000` is not", "`x/1` is not", "`DNS` is not", "`udp/53` is the same port as `17/53`"]
        {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_it_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "listen = \"127.0.0.1:1\"\n[log]\nlevel = \"warn\"").expect("written");
        let flags = Overrides {
            config: Some(file.path().to_owned()),
            log_level: Some("debug".to_owned()),
            ..Overrides::default()
        };
        let config = load(
            &flags,
            environment(&[
                ("WEIR_CONTROL_PLANE__LISTEN", "127.0.0.1:2"),
                ("WEIR_CONTROL_PLANE__LOG__LEVEL", "error"),
                ("WEIR_CONTROL_PLANE__API__CORS_ORIGINS", "[\"https://weir.example\"]"),
            ]),
        )
        .expect("all of it is valid");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.log.level, "debug");
        assert_eq!(config.api.cors_origins, ["https://weir.example"]);
    }

    #[test]
    fn printing_hides_the_password() {
        let config = load(
            &Overrides::default(),
            environment(&[("WEIR_CONTROL_PLANE__DATABASE__URL", "postgres://weir:hunter2@db/weir")]),
        )
        .expect("valid");
        let printed = toml::to_string(&config).expect("a configuration is TOML");
        assert!(printed.contains("(hidden)") && !printed.contains("hunter2"), "{printed}");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
