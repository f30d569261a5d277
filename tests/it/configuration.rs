//! The sources of options, the messages about wrong ones, and secrets that stay hidden.

use std::fs;

use tempfile::TempDir;

use crate::support::{Ended, anomaly_counter};

/// Runs `check-config` in `dir`.
fn check_config(dir: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let environment = environment.iter();
    Ended::of(
        anomaly_counter(arguments)
            .arg("check-config")
            .current_dir(dir.path())
            .envs(environment.map(|(name, value)| (format!("ANOMALY_COUNTER__{name}"), value))),
    )
}

/// The line of `printed` that sets `key`, with single blanks.
fn line(printed: &str, key: &str) -> String {
    let line = printed.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_source_goes_over_the_one_before_and_is_named() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("config")).unwrap();
    let file = "[thresholds]\nrepeat = 2\nescalate = 4\n[batch]\nmax_waiting_calls = 7\n";
    fs::write(dir.path().join("config/site.toml"), file).unwrap();
    // As in a clone: the defaults are in the binary, and their copy goes over nothing.
    let defaults = anomaly_counter::config::DEFAULTS.replace("repeat = 3", "repeat = 4");
    fs::write(dir.path().join("config/default.toml"), &defaults).unwrap();
    fs::rename(dir.path().join("config/site.toml"), dir.path().join("config/a.toml")).unwrap();
    let printed = check_config(&dir, &[], &[("THRESHOLDS__ESCALATE", "6")]).succeeded().printed();
    assert_eq!(line(&printed, "listen"), r#"listen = "127.0.0.1:8080" # built-in"#);
    assert_eq!(line(&printed, "thresholds.repeat"), "thresholds.repeat = 2 # config/a.toml");
    assert!(
        line(&printed, "thresholds.escalate").contains("= \"6\" # ANOMALY_COUNTER__THRESHOLDS")
    );

    fs::write(dir.path().join("other.toml"), "data_dir = \"/tmp/elsewhere\"\n").unwrap();
    let printed = check_config(&dir, &["--config", "other.toml"], &[]).succeeded().printed();
    assert_eq!(line(&printed, "data_dir"), r#"data_dir = "/tmp/elsewhere" # other.toml"#);
    assert!(
        line(&printed, "batch.max_waiting_calls").ends_with("# built-in"),
        "only the named file"
    );
}

#[test]
fn the_printed_configuration_is_one() {
    let dir = TempDir::new().unwrap();
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let tokens = format!(
        "[[auth.tokens]]\nname = \"ci\"\nsha256 = \"{digest}\"\nscopes = [\"read\", \"ingest\"]\n"
    );
    fs::write(dir.path().join("tokens.toml"), tokens).unwrap();
    let options = ["--config", "tokens.toml"];
    let printed = check_config(&dir, &options, &[("REDIS__KEY_PREFIX", "a\"b:")]).printed();
    assert!(line(&printed, "auth.tokens").contains("scopes = [\"read\", \"ingest\"]"));
    fs::write(dir.path().join("printed.toml"), &printed).unwrap();
    let again = check_config(&dir, &["--config", "printed.toml"], &[]).succeeded().printed();
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&printed));
}

#[test]
fn a_password_is_not_printed() {
    let dir = TempDir::new().unwrap();
    let url = [("REDIS__URL", "redis://ops:s3cret@127.0.0.1:6379/1")];
    let printed = check_config(&dir, &[], &url).succeeded().printed();
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(line(&printed, "redis.url").contains("redis://ops:***@127.0.0.1:6379/1"));

    let url = [("TRACES__ENDPOINT", "https://ops:s3cret@collector/v1/traces")];
    let printed = check_config(&dir, &[], &url).failed().printed();
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[test]
fn faults_stop_with_the_name_of_the_key() {
    let dir = TempDir::new().unwrap();
    for (name, value, says) in [
        ("LISTNE", "x", "listne"),
        ("REDIS__HOST", "x", "host"),
        ("LISTEN", "8080", "listen"),
        ("BATCH__MAX_WAITING_CALLS", "many", "batch.max_waiting_calls"),
        ("BATCH__MAX_WAITING_CALLS", "0", "batch.max_waiting_calls"),
        ("THRESHOLDS__REPEAT", "5", "thresholds"),
        ("THRESHOLDS__REPEAT", "0", "thresholds"),
        ("ALERTMANAGER__COUNT", "alerts", "alertmanager.count"),
        ("REDIS__URL", "http://127.0.0.1", "redis.url"),
        ("REDIS__CONNECTIONS", "0", "redis.connections"),
        ("REDIS__KEY_PREFIX", "{app}:", "redis.key_prefix"),
        ("REDIS__COMMAND_TIMEOUT_MS", "0", "redis.command_timeout_ms"),
        ("BATCH__MAX_WAITING_CALLS", "9223372036854775807", "batch.max_waiting_calls"),
        ("LOG__LEVEL", "a=b=c", "log.level"),
        ("LOG__LEVEL", "verbose", "log.level"),
        ("TRACES__ENDPOINT", "127.0.0.1:4318", "traces.endpoint"),
        ("TRACES__ENDPOINT", "grpc://127.0.0.1:4317/v1/traces", "http://127.0.0.1:4318/v1/traces"),
        ("TRACES__ENDPOINT", "http://127.0.0.1:4318", "/v1/traces"),
        ("TRACES__ENDPOINT", "https://ops:pw@h/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("TRACES__SAMPLE_RATIO", "1.01", "traces.sample_ratio"),
        ("TRACES__SAMPLE_RATIO", "NaN", "traces.sample_ratio"),
    ] {
        let printed = check_config(&dir, &[], &[(name, value)]).failed().printed();
        assert!(printed.contains(says), "{name}={value}: {printed}");
    }
    let printed = check_config(&dir, &["--config", "missing.toml"], &[]).failed().printed();
    assert!(printed.contains("missing.toml"), "{printed}");
}

#[test]
fn a_file_that_can_not_be_read_is_told_without_its_secrets() {
    let dir = TempDir::new().unwrap();
    let file = "[redis]\nurl = \"redis://ops:s3cret@h\" oops\n";
    fs::write(dir.path().join("broken.toml"), file).unwrap();
    let printed = check_config(&dir, &["--config", "broken.toml"], &[]).failed().printed();
    assert!(printed.contains("broken.toml"), "{printed}");
    assert!(printed.contains("line 2"), "{printed}");
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[test]
fn a_variable_left_empty_is_not_set() {
    let dir = TempDir::new().unwrap();
    let printed = check_config(&dir, &[], &[("REDIS__URL", "")]).succeeded().printed();
    assert!(!printed.contains("redis.url"), "{printed}");
}
