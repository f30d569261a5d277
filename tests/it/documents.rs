//! Commands and configurations in documents are valid. Those of the README and of docs/find.md are
//! in `readme.rs`, those of docs/counting.md in `key_mapping.rs` and `rules_command.rs`, and the
//! commands about dead letters in `dead_letters.rs`.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{
    readme::{README, amtool, commands, fenced, promtool},
    support::{Ended, servers::service::SERVICE},
};

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const SECURITY: &str = include_str!("../../docs/security.md");
const TRACING: &str = include_str!("../../docs/tracing.md");

fn bash(script: &str) -> Ended {
    let dir = TempDir::new().unwrap();
    Ended::of(Command::new("bash").args(["-ec", script]).current_dir(dir.path()))
}

#[test]
fn commands_that_start_the_service_have_options_that_a_start_accepts() {
    for document in [README, CONFIGURATION, TRACING] {
        let mut starts = 0;
        for block in commands(document).iter().filter(|block| block.starts_with("ANOMALY_COUNTER"))
        {
            let start = block.trim_end();
            let programs = ["cargo run --release", "anomaly-counter"];
            let options = programs.iter().find_map(|program| start.strip_suffix(program));
            let options = options.unwrap_or_else(|| panic!("{start}"));
            let printed = bash(&format!("{options} {SERVICE} check-config")).succeeded().printed();
            let name = options.split('=').next().unwrap();
            assert!(printed.contains(&format!("# {name}")), "{printed}");
            starts += 1;
        }
        assert_eq!(starts, 1);
    }
}

#[test]
fn the_command_that_makes_a_token_prints_the_entry_that_a_start_accepts() {
    let block = commands(SECURITY).into_iter().find(|block| block.contains("token new")).unwrap();
    let script = format!("anomaly-counter() {{ {SERVICE} \"$@\"; }}\n{block}");
    let printed = bash(&script).succeeded().printed();
    let at = printed.find("[[tokens]]\nname").unwrap_or_else(|| panic!("{printed}"));
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("tokens.toml"), &printed[at..]).unwrap();
    let mut check = Command::new(SERVICE);
    let options = [("LISTEN", "0.0.0.0:9000"), ("AUTH__FILE", "tokens.toml")];
    let options = options.map(|(name, value)| (format!("ANOMALY_COUNTER__{name}"), value));
    check.arg("check-config").envs(options).current_dir(dir.path());
    Ended::of(&mut check).succeeded();
    // Without the entry it is refused.
    fs::write(dir.path().join("tokens.toml"), "").unwrap();
    Ended::of(&mut check).failed();
}

#[test]
fn alertmanager_and_prometheus_accept_the_configurations_with_tokens() {
    let blocks = fenced(SECURITY, "yaml");
    let [webhook, scrape] = blocks[..] else { panic!("{blocks:?}") };
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let webhook: String = webhook.lines().map(|line| format!("    {line}\n")).collect();
    let config = format!("route: {{receiver: team}}\nreceivers:\n  - name: team\n{webhook}");
    fs::write(path("alertmanager.yml"), &config).unwrap();
    let (printed, is_accepted) = amtool(&["check-config", &path("alertmanager.yml")]);
    assert!(is_accepted, "{printed}{config}");
    fs::write(path("prometheus.yml"), scrape).unwrap();
    // The file with the token is not on this machine.
    let arguments = ["check", "config", "--syntax-only", &path("prometheus.yml")];
    let (printed, is_accepted) = promtool(&arguments);
    assert!(is_accepted, "{printed}{scrape}");
}
