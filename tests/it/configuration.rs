//! The sources of options, the messages about wrong ones, and secrets that stay hidden.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::support::{
    Ended, RedisCluster, RedisServer, Service, anomaly_counter, write_certificates,
};

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

/// Returns the line of `printed` that sets `key`, with single blanks.
fn line(printed: &str, key: &str) -> String {
    let line = printed.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_source_overrides_the_one_before_and_is_named() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("config")).unwrap();
    let file = "[thresholds]\nrepeat = 2\nescalate = 4\n[batch]\nmax_waiting_calls = 7\n";
    fs::write(dir.path().join("config/site.toml"), file).unwrap();
    // As in a clone of the repository: the defaults are in the binary, and a changed copy of them
    // overrides nothing.
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
fn the_printed_configuration_can_be_used() {
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
fn a_faulty_option_stops_the_start_and_is_named() {
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
        ("ALERTMANAGER__STALE_AFTER", "13", "alertmanager.stale_after"),
        ("ALERTMANAGER__INCIDENT_MAX", "36d", "alertmanager.incident_max"),
        ("ALERTMANAGER__COUNT_MISSED", "maybe", "alertmanager.count_missed"),
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

const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

#[test]
fn an_error_names_the_key_the_file_and_what_is_allowed_in_plain_words() {
    let dir = TempDir::new().unwrap();
    let token = format!("[[auth.tokens]]\nname = \"ci\"\nsha256 = \"{DIGEST}\"\n");
    let with_token = |rest: &str| token.clone() + rest;
    let rule = |rest: &str| {
        let first = "[[key.relabel]]\ntarget_label = \"service\"\n";
        format!("{first}{first}{rest}\n")
    };
    for (config, says) in [
        (
            "listne = 1".to_owned(),
            "`listne` (c.toml) is not a known key: the keys here are `listen`",
        ),
        ("[tokens]\na = 1".to_owned(), "`tokens` (c.toml) is not a known key"),
        (
            "redis.host = 1".to_owned(),
            "`redis.host` (c.toml) is not a known key: the keys here are",
        ),
        ("listen = 8080".to_owned(), "`listen` (c.toml) is a number: it must be a text in quotes"),
        ("listen = \"8080\"".to_owned(), "or localhost:8080"),
        (
            "log.format = \"text\"".to_owned(),
            "`log.format` (c.toml) is \"text\": it must be \"auto\", \"pretty\" or \"json\"",
        ),
        ("log.format = 3".to_owned(), "it must be \"auto\", \"pretty\" or \"json\""),
        (
            "alertmanager.count = \"alert\"".to_owned(),
            "`alertmanager.count` (c.toml) is \"alert\": it must be \"incident\", \"episode\" or \
             \"delivery\"",
        ),
        (
            "alertmanager.stale_after = \"13\"".to_owned(),
            "must be a whole number with s, m, h or d, such as \"13h\", up to 35d",
        ),
        (
            "http.max_connections = 70000".to_owned(),
            "`http.max_connections` (c.toml) is 70000: it must be a whole number from 1 to 65535",
        ),
        (
            "http.max_connections = 0".to_owned(),
            "`http.max_connections` (c.toml) is 0: it must be a whole number from 1 to 65535",
        ),
        (
            "http.shutdown_timeout_seconds = 9223372036854775000".to_owned(),
            "it must be a whole number from 0 to 65535",
        ),
        ("http.max_connections = true".to_owned(), "is true: it must be a whole number"),
        ("spool.max_bytes = 1.5".to_owned(), "is 1.5: it must be a whole number"),
        ("auth.disabled = \"maybe\"".to_owned(), "is \"maybe\": it must be true or false"),
        ("traces.sample_ratio = \"x\"".to_owned(), "is \"x\": it must be a number"),
        ("redis = \"redis://:s3cret@h\"".to_owned(), "it must be a section, [redis]"),
        (
            "auth.tokens = \"s3cret\"".to_owned(),
            "`auth.tokens` (c.toml) is a text: it must be a list",
        ),
        (
            "proxy.trusted = 3".to_owned(),
            "`proxy.trusted` (c.toml) has the wrong type: it must be a",
        ),
        ("proxy.trusted = [3]".to_owned(), "`proxy.trusted[0]` (c.toml) is a number"),
        ("thresholds.repeat = 9".to_owned(), "`thresholds` (c.toml): thresholds must rise"),
        (
            with_token("scopes = [\"reads\"]"),
            "`auth.tokens[0].scopes[0]` (c.toml) is \"reads\": it must be \"ingest\", \"read\" or",
        ),
        (with_token("scope = []"), "`auth.tokens[0].scope` (c.toml) is not a known key"),
        (with_token(""), "`auth.tokens[0].scopes` (c.toml) is missing"),
        (
            with_token("scopes = [\"read\"]\nrequests_per_second = 0"),
            "`auth.tokens[0].requests_per_second` (c.toml) is 0: it must be a whole number from 1",
        ),
        (
            with_token("scopes = [\"read\"]\nexpires_at = 2027-01-01"),
            "`auth.tokens[0].expires_at` (c.toml) is not an RFC 3339 time such as",
        ),
        (token.replace(DIGEST, "s3cret"), "`auth.tokens[0].sha256` (c.toml) is not a SHA-256"),
        (
            rule("action = \"drop\""),
            "`key` (c.toml): relabel rule 2: `action` is \"drop\": write \"replace\" or",
        ),
        (
            rule("target_label = \"job\"").replacen("target_label = \"service\"\n", "", 2),
            "relabel rule 1: `target_label` is missing: write \"alert_name\"",
        ),
        (
            rule("regex = \"(a\""),
            "rule 2: `regex` is not a regular expression of RE2: unclosed group, at character 1",
        ),
        (rule("modulus = 2"), "`key.relabel[1].modulus` (c.toml) is not a known key"),
        (rule("regex = 3"), "`key.relabel[1].regex` (c.toml) is a number: it must be a text"),
        (
            "key.mask.service = [\"guid\"]".to_owned(),
            "`key.mask.service[0]` (c.toml) is \"guid\": it must be \"uuid\", \"ip\",",
        ),
        (
            "key.mask.job = [\"hex\"]".to_owned(),
            "`key.mask.job` (c.toml) is not a known key: the keys here are `alert_name`, `service`",
        ),
        ("key.kubernetes = \"maybe\"".to_owned(), "is \"maybe\": it must be true or false"),
        ("alertmanager.kubernetes = 2".to_owned(), "is 2: it must be true or false"),
        ("listen =".to_owned(), "c.toml is not TOML: line 1, column 9"),
    ] {
        fs::write(dir.path().join("c.toml"), format!("{config}\n")).unwrap();
        let stderr = check_config(&dir, &["--config", "c.toml"], &[]).failed().stderr;
        assert!(stderr.contains(says), "{config}: {stderr}");
        assert!(!stderr.contains("s3cret"), "{config}: {stderr}");
        for rust in ["enum ", "struct ", "variant", "u16", "u32", "u64", "sequence", "untagged"] {
            assert!(!stderr.contains(rust), "{config}: {stderr}");
        }
    }
    let variable = [("LOG__FORMAT", "text")];
    let stderr = check_config(&dir, &[], &variable).failed().stderr;
    assert!(stderr.contains("`log.format` (ANOMALY_COUNTER__LOG__FORMAT) is \"text\""), "{stderr}");
}

/// Returns the last line that a command has printed on standard error.
fn last_line(ended: &Ended) -> String {
    ended.stderr.lines().last().unwrap_or_default().to_owned()
}

/// Runs the service in `dir`, which must end by itself.
fn start(dir: &Path, config: &str) -> Ended {
    // A service that starts nevertheless would run for ever.
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_anomaly-counter"), "--config", config]);
    Ended::of(command.current_dir(dir))
}

#[test]
fn whatever_stops_a_start_stops_check_config_with_the_same_sentence() {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    let entry = format!("name = \"ci\"\nsha256 = \"{DIGEST}\"\nscopes = [\"read\"]\n");
    for (file, text) in [
        ("half.toml", "[[tokens]]\nname = \"ci\"\nsha2".to_owned()),
        ("digest.toml", format!("[[tokens]]\n{}", entry.replace(DIGEST, "abc"))),
        ("scope.toml", format!("[[tokens]]\n{}", entry.replace("read", "write"))),
        ("twice.toml", format!("[[tokens]]\n{entry}[[tokens]]\n{entry}")),
        ("empty.toml", String::new()),
        ("empty", String::new()),
        ("garbage.pem", "no certificate".to_owned()),
    ] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    fs::create_dir_all(dir.path().join("blocked/anomalies.redb")).unwrap();
    let pair = "tls.certificate_file = \"server.pem\"\ntls.key_file = \"server.key\"\n";
    let tls_redis = "redis.url = \"rediss://127.0.0.1:1\"\n";
    for (config, says) in [
        ("auth.file = \"nowhere.toml\"".to_owned(), "nowhere.toml can't be read"),
        ("auth.file = \".\"".to_owned(), "auth.file"),
        ("auth.file = \"half.toml\"".to_owned(), "half.toml is not TOML: line 3"),
        ("auth.file = \"digest.toml\"".to_owned(), "`tokens[0].sha256` (digest.toml) is not a SHA"),
        (
            "auth.file = \"scope.toml\"".to_owned(),
            "is \"write\": it must be \"ingest\", \"read\" or",
        ),
        ("auth.file = \"twice.toml\"".to_owned(), "twice.toml: two tokens have the name"),
        ("auth.grafana_secret_file = \"nowhere\"".to_owned(), "auth.grafana_secret_file"),
        ("auth.grafana_secret_file = \"empty\"".to_owned(), "the file is empty"),
        ("listen = \"0.0.0.0:0\"".to_owned(), "refusing to listen on 0.0.0.0:0 without tokens"),
        (
            "listen = \"0.0.0.0:0\"\nauth.file = \"empty.toml\"".to_owned(),
            "refusing to listen on 0.0.0.0:0 without tokens",
        ),
        ("listen = \"nowhere.invalid:80\"".to_owned(), "`listen` (nowhere.invalid:80)"),
        ("tls.certificate_file = \"server.pem\"".to_owned(), "must both be set"),
        (pair.replace("server.pem", "nowhere.pem"), "nowhere.pem"),
        (pair.replace("server.pem", "garbage.pem"), "garbage.pem"),
        (pair.replace("server.key", "client.key"), "belong together"),
        (pair.to_owned() + "tls.client_ca_file = \"garbage.pem\"", "garbage.pem"),
        (tls_redis.to_owned() + "redis.tls.ca_file = \"garbage.pem\"", "garbage.pem"),
        (tls_redis.to_owned() + "redis.tls.key_file = \"server.key\"", "must both be set"),
        (
            tls_redis.to_owned()
                + &pair.replace("server.key", "client.key").replace("tls.", "redis.tls."),
            "redis.tls",
        ),
        ("data_dir = \"garbage.pem\"".to_owned(), "data_dir garbage.pem"),
        ("data_dir = \"garbage.pem/data\"".to_owned(), "data_dir garbage.pem/data"),
        ("data_dir = \"/proc/data\"".to_owned(), "data_dir /proc/data"),
        ("data_dir = \"blocked\"".to_owned(), "anomalies.redb"),
        ("redis.url = \"http://127.0.0.1\"".to_owned(), "redis.url"),
        ("proxy.trusted = [\"10.0.0.0/99\"]".to_owned(), "proxy.trusted"),
        ("browser.allowed_origins = [\"ops\"]".to_owned(), "browser.allowed_origins"),
        ("browser.allowed_hosts = [\"https://ops\"]".to_owned(), "browser.allowed_hosts"),
        ("thresholds.escalate = 2".to_owned(), "thresholds must rise"),
        ("log.format = \"text\"".to_owned(), "log.format"),
        ("lisen = \"127.0.0.1:1\"".to_owned(), "`lisen` (c.toml) is not a known key"),
        (
            "[[key.relabel]]\ntarget_label = \"team\"".to_owned(),
            "relabel rule 1: `target_label` is \"team\": write",
        ),
        (
            "[[key.relabel]]\ntarget_label = \"service\"\n".repeat(65),
            "`key` (c.toml): `relabel` has more than 64 rules",
        ),
    ] {
        let listen = if config.contains("listen =") { "" } else { "listen = \"127.0.0.1:0\"\n" };
        fs::write(dir.path().join("c.toml"), format!("{listen}{config}\n")).unwrap();
        let checked = check_config(&dir, &["--config", "c.toml"], &[]).failed();
        let started = start(dir.path(), "c.toml").failed();
        assert_eq!(last_line(&checked), last_line(&started), "{config}");
        assert!(last_line(&checked).contains(says), "{config}: {}", checked.stderr);
        assert!(last_line(&checked).starts_with("anomaly-counter: "), "{}", checked.stderr);
    }
}

#[tokio::test]
async fn a_file_of_the_store_that_stops_a_start_stops_check_config_and_stays_as_it_is() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("c.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let file = dir.path().join("data/anomalies.redb");
    let mut service = Service::embedded().await;
    service.post("/anomalies", &serde_json::json!({"alert_name": "HighCPU"})).await.ok();
    service.kill();
    let whole = fs::read(service.data_dir().join("anomalies.redb")).unwrap();
    let journal = "anomalies.journal";
    fs::copy(service.data_dir().join(journal), dir.path().join("data").join(journal)).unwrap();
    for (content, is_fine) in [
        (&b""[..], false),
        (b"no file of the store", false),
        (&whole[..whole.len() / 2], false),
        (&whole, true),
        (include_bytes!("../data/8c08e13/anomalies.redb"), true),
    ] {
        fs::write(&file, content).unwrap();
        let checked = check_config(&dir, &["--config", "c.toml"], &[]);
        assert_eq!(fs::read(&file).unwrap(), content);
        if is_fine {
            checked.succeeded();
        } else {
            let started = start(dir.path(), "c.toml").failed();
            assert_eq!(last_line(&checked.failed()), last_line(&started));
        }
    }
}

#[test]
fn a_check_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    check_config(&dir, &[], &[("DATA_DIR", "a/b/c")]).succeeded();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    check_config(&dir, &[], &[("DATA_DIR", "a/b")]).succeeded();
    check_config(&dir, &[], &[("DATA_DIR", "a/b/c")]).succeeded();
    assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_check_beside_the_running_service_passes() {
    let service = Service::embedded().await;
    let data_dir = service.data_dir();
    let environment = [("DATA_DIR", data_dir.to_str().unwrap()), ("LISTEN", service.address())];
    check_config(&TempDir::new().unwrap(), &[], &environment).succeeded();
    service.get("/readyz").await.ok();
}

/// Runs `check-config --connect` with a URL of Redis.
fn check_redis(url: &str) -> Ended {
    let dir = TempDir::new().unwrap();
    let mut command = anomaly_counter(&["check-config", "--connect"]);
    Ended::of(command.current_dir(dir.path()).env("ANOMALY_COUNTER__REDIS__URL", url))
}

#[tokio::test]
async fn check_config_with_connect_describes_redis() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let found = check_redis(&redis.url()).succeeded().stdout;
    let found = found.lines().last().unwrap();
    for part in ["# redis://", "version ", "role master", "not a cluster", "allkeys-lru", "noevic"]
    {
        assert!(found.contains(part), "{part}: {found}");
    }
    redis.client().await.run(&["ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all", "-zadd"]).await;
    let url = redis.url().replace("redis://", "redis://u:pw@");
    let lacking = check_redis(&url).failed().stderr;
    assert!(lacking.contains("lacks permissions"), "{lacking}");
    assert!(!lacking.contains(":pw@"), "{lacking}");

    let cluster = RedisCluster::of_masters(3).await;
    let found = check_redis(&cluster.url()).succeeded().stdout;
    assert!(found.contains("part of a cluster"), "{found}");
    let wrong = check_redis(&cluster.url().replace("redis-cluster", "redis")).failed().stderr;
    assert!(wrong.contains("redis-cluster://"), "{wrong}");

    let none = check_redis("").succeeded().stdout;
    assert!(none.lines().last().unwrap().contains("`redis.url` is not set"), "{none}");
}

#[test]
fn the_default_configuration_is_printed_and_can_be_used() {
    let dir = TempDir::new().unwrap();
    let defaults = Ended::of(&mut anomaly_counter(&["default-config"])).succeeded().stdout;
    assert_eq!(defaults, anomaly_counter::config::DEFAULTS);
    fs::write(dir.path().join("printed.toml"), defaults).unwrap();
    check_config(&dir, &["--config", "printed.toml"], &[]).succeeded();
}

/// Returns the options of the built-in defaults, with their values; `None` for a commented-out one.
fn built_in() -> BTreeMap<String, Option<String>> {
    let (mut section, mut options) = (String::new(), BTreeMap::new());
    for line in anomaly_counter::config::DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        }
        let (line, is_set) = line.strip_prefix("# ").map_or((line, true), |line| (line, false));
        let Some((name, value)) = line.split_once(" = ") else { continue };
        if name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)) {
            let value = is_set.then(|| value.trim_matches('"').to_owned());
            options.entry(format!("{section}{name}")).or_insert(value);
        }
    }
    options
}

#[test]
fn the_document_has_every_option_with_its_default() {
    let document = include_str!("../../docs/configuration.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: BTreeMap<_, _> = rows
        .map(|(name, rest)| {
            let value = rest.split('|').next().unwrap().trim_matches([' ', '`']);
            (name.to_owned(), (!value.is_empty()).then(|| value.to_owned()))
        })
        .collect();
    let built_in = built_in();
    for (name, value) in &documented {
        assert_eq!(built_in.get(name), Some(value), "{name}");
    }
    // A comment may also be an example of what stands in a list.
    for (name, _) in built_in.iter().filter(|(_, value)| value.is_some()) {
        assert!(documented.contains_key(name), "{name}");
    }
    for name in ["redis.url", "rules.file", "traces.endpoint"] {
        assert!(documented.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_name_to_listen_on_is_resolved_and_is_local_if_its_addresses_are() {
    let dir = TempDir::new().unwrap();
    check_config(&dir, &[], &[("LISTEN", "localhost:8080")]).succeeded();
    let service = Service::with(&[("LISTEN", "localhost:0")]).await;
    let address: std::net::SocketAddr = service.address().parse().unwrap();
    assert!(address.ip().is_loopback(), "{address}");
    service.get("/readyz").await.ok();
}

#[test]
fn a_file_that_can_not_be_read_is_reported_without_its_secrets() {
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
