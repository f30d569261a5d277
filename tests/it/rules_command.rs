//! The commands about rules, and rules that can't be used: the output of `rules test` and
//! `check-config`.

use crate::{
    readme::fenced,
    support::{Ended, anomaly_counter},
};

const RULES: &str = r#"
[[rule]]
name = "dev"
match = ['namespace=~"dev-.*"', 'service!="billing"']
levels = "none"

[[rule]]
name = "batch"
match = ['namespace="batch"']
[rule.levels]
REPEAT = ["3 in 24h"]
ESCALATE = ["5 in 24h", "4 in 1h"]
PERMANENT_FIX = ["20 in 7d and 2 in 24h", "40 in 7d"]
"#;

/// Runs the binary in a folder with these files, of which `config.toml` is the configuration.
fn run_with(files: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let dir = tempfile::TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let config = dir.path().join("config.toml");
    if !config.exists() {
        std::fs::write(&config, "rules.file = \"rules.toml\"\n").unwrap();
    }
    let arguments = [&["--config", "config.toml"], arguments].concat();
    Ended::of(anomaly_counter(&arguments).current_dir(dir.path()))
}

fn test_cases(cases: &str) -> Ended {
    let files = [("rules.toml", RULES), ("cases.toml", cases)];
    run_with(&files, &["rules", "test", "--cases", "cases.toml"])
}

#[test]
fn rules_test_says_which_rule_an_anomaly_has_and_why() {
    let asked = |signature: &str| {
        run_with(&[("rules.toml", RULES)], &["rules", "test", signature]).succeeded().stdout
    };
    let batch = asked(r#"{"alertname":"KubeJobFailed","namespace":"batch"}"#);
    let expected = "\
key 1d0f1cc4a3ee5a39
rule 1 \"dev\": namespace=~\"dev-.*\" does not match
rule 2 \"batch\" matches
  REPEAT: 3 in 24h
  ESCALATE: 5 in 24h, or 4 in 1h
  PERMANENT_FIX: 20 in 7d and 2 in 24h, or 40 in 7d
";
    let (_, after_key) = batch.split_once('\n').unwrap();
    assert_eq!(after_key, expected.split_once('\n').unwrap().1);
    let key = Ended::of(&mut anomaly_counter(&[
        "key",
        r#"{"alertname":"KubeJobFailed","namespace":"batch"}"#,
    ]));
    assert_eq!(batch.lines().next().unwrap(), format!("key {}", key.stdout.trim()));

    let billing = asked(r#"{"job":"billing","namespace":"dev-ada"}"#);
    assert!(billing.contains("rule 1 \"dev\": service!=\"billing\" does not match"), "{billing}");
    assert!(billing.contains("rule 3 \"default\" matches\n  REPEAT: 3 in 24h"), "{billing}");
    let dev = asked(r#"{"job":"shop","namespace":"dev-ada"}"#);
    assert!(dev.ends_with("rule 1 \"dev\" matches\n  no levels\n"), "{dev}");
    for wrong in ["[]", "{}", "no JSON"] {
        run_with(&[("rules.toml", RULES)], &["rules", "test", wrong]).failed();
    }
    run_with(&[("rules.toml", RULES)], &["rules", "test"]).failed();
}

#[test]
fn cases_that_are_as_expected_end_well() {
    let cases = r#"
[[case]]
signature = { alertname = "KubeJobFailed", namespace = "batch" }
counts = { "24h" = 5, "7d" = 21 }
rule = "batch"
level = "PERMANENT_FIX"

[[case]]
signature = { alertname = "A", namespace = "batch" }
counts = { "1h" = 4 }
level = "ESCALATE"

[[case]]
signature = { alertname = "A", namespace = "dev-ada" }
counts = { "24h" = 500 }
rule = "dev"
level = "none"

[[case]]
signature = { alertname = "A" }
rule = "default"
"#;
    let ended = test_cases(cases).succeeded();
    assert_eq!(ended.stdout, "4 cases are as expected\n");
}

#[test]
fn a_case_that_is_not_as_expected_is_a_diff_and_a_failure() {
    let cases = r#"
[[case]]
signature = { alertname = "A", namespace = "batch" }
counts = { "24h" = 5 }
rule = "dev"
level = "REPEAT"

[[case]]
signature = { alertname = "A" }
rule = "default"
"#;
    let ended = test_cases(cases).failed();
    let diff = "\
case 1 {\"alertname\":\"A\",\"namespace\":\"batch\"}
  - rule dev
  + rule batch
  - level REPEAT
  + level ESCALATE: 5 in 24h >= 5 (rule batch)
";
    assert_eq!(ended.stdout, diff);
    assert!(ended.stderr.contains("1 of 2 cases are not as expected"), "{}", ended.stderr);
}

#[test]
fn a_file_of_cases_that_can_not_be_used_says_why() {
    let case = |more: &str| format!("[[case]]\nsignature = {{ alertname = \"A\" }}\n{more}\n");
    for (cases, says) in [
        (String::new(), "has no cases"),
        (case(""), "case 1: nothing is expected"),
        (case("level = \"HIGH\""), "case 1: level \"HIGH\" is not one of REPEAT"),
        (case("rule = \"a\"\ncounts = { \"24\" = 1 }"), "case 1: \"24\" is not a window"),
        (case("rule = \"a\"\ncounts = { \"1h\" = 3, \"24h\" = 1 }"), "case 1: a window has 3"),
        (case("rule = \"a\"\ncount = {}"), "`case[0].count` (cases.toml) is not a known key"),
        ("[[case]]\nsignature = {}\nrule = \"a\"\n".to_owned(), "signature is empty"),
    ] {
        let stderr = test_cases(&cases).failed().stderr;
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn the_configuration_is_printed_with_the_rules_in_their_order() {
    let printed = run_with(&[("rules.toml", RULES)], &["check-config"]).succeeded().stdout;
    let places: Vec<usize> = [
        "# The rules in force, checksum ",
        "#   1 \"dev\" (namespace=~\"dev-.*\", service!=\"billing\") -> none",
        "#   2 \"batch\" (namespace=\"batch\") -> REPEAT: 3 in 24h; ESCALATE: 5 in 24h, 4 in 1h; ",
        "#   3 \"default\" (everything) -> REPEAT: 3 in 24h; ESCALATE: 5 in 24h; ",
        "# rule \"batch\": the service can't tell whether a step by \"40 in 7d\" is new",
    ]
    .iter()
    .map(|part| printed.find(part).unwrap_or_else(|| panic!("{part}: {printed}")))
    .collect();
    assert!(places.is_sorted(), "{printed}");
    // The whole output can be used as a file.
    let again = run_with(&[("config.toml", &printed), ("rules.toml", RULES)], &["check-config"]);
    again.succeeded();
}

#[test]
fn rules_that_can_not_be_used_stop_the_start_with_their_place() {
    let nested = format!("rule = {}{}", "[".repeat(2_000), "]".repeat(2_000));
    let large = format!("# {}", "x".repeat(5 << 20));
    let wrong = |rules: &str| run_with(&[("rules.toml", rules)], &["check-config"]);
    for (rules, says) in [
        (RULES.replace("5 in 24h", "5 in 24"), "rule 2 \"batch\": ESCALATE \"5 in 24\": write"),
        (RULES.replace("ESCALATE", "ESCALTE"), "\"ESCALTE\" is not a level"),
        (RULES.replace("dev-.*", "dev-(.*"), "unclosed group, at character 5"),
        (RULES.replace("\"batch\"\nm", "\"dev\"\nm"), "rule 2 \"dev\": write another name"),
        (
            RULES.replace("match = ['namespace=~\"dev-.*\"', 'service!=\"billing\"']\n", ""),
            "rule 2 \"batch\": can never match: rule 1 matches everything",
        ),
        (RULES.replace("levels = \"none\"", "levles = \"none\""), "\"levles\": is not a known key"),
        ("[[rule]]\nname = 7\n".to_owned(), "rule 1: name: write"),
        ("[rule]\nname = \"x\"\n".to_owned(), "`rule` is a section"),
        ("[[rules]]\nname = \"x\"\n".to_owned(), "`rules` is not a known key"),
        ("[[rule]]\nname = \"x\"\nname = \"y\"\n".to_owned(), "is not TOML"),
        ("\u{0}".to_owned(), "is not TOML"),
        (nested, "rules.toml: "),
        (large, "larger than 4 MiB"),
    ] {
        let stderr = wrong(&rules).failed().stderr;
        assert!(stderr.contains("rules.toml"), "{stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
        assert!(stderr.len() < 2_000, "{} bytes", stderr.len());
    }
    run_with(&[("rules.toml", "")], &["check-config"]).succeeded();
    let missing = run_with(&[], &["check-config"]).failed().stderr;
    assert!(missing.contains("(`rules.file`) can't be read"), "{missing}");
    let folder = [("config.toml", "rules.file = \"/\"\n")];
    let folder = run_with(&folder, &["check-config"]).failed().stderr;
    assert!(folder.contains("it is not a file"), "{folder}");
    let both = "[rules]\nfile = \"rules.toml\"\n[[rules.rule]]\nname = \"x\"\n";
    let both = run_with(&[("config.toml", both), ("rules.toml", RULES)], &["check-config"]);
    assert!(both.failed().stderr.contains("in one of the two places"));
    for (rearm, says) in [
        ("\"24\"", "`rules.rearm` (config.toml) has no unit: write \"24h\""),
        ("\"31d\"", "from \"0h\" to \"30d\""),
        ("\"soon\"", "from \"0h\" to \"30d\""),
        ("24", "`rules.rearm`"),
    ] {
        let config = format!("rules.rearm = {rearm}\n");
        let stderr = run_with(&[("config.toml", &config)], &["check-config"]).failed().stderr;
        assert!(stderr.contains(says), "{stderr}");
    }
    let inline = "[[rules.rule]]\nname = \"a\"\nmatch = [\"pod=\\\"x\\\"\"]\n";
    let stderr = run_with(&[("config.toml", inline)], &["check-config"]).failed().stderr;
    assert!(stderr.contains("[[rules.rule]]: rule 1 \"a\": match"), "{stderr}");
}

#[test]
fn the_example_of_rules_can_be_used_as_it_is() {
    let example = std::fs::read_to_string("deploy/rules.example.toml").unwrap();
    let cases = std::fs::read_to_string("deploy/rules.example.cases.toml").unwrap();
    let files = [("rules.toml", example.as_str()), ("cases.toml", cases.as_str())];
    let ended = run_with(&files, &["rules", "test", "--cases", "cases.toml"]).succeeded();
    assert_eq!(ended.stdout, "6 cases are as expected\n");
}

const COUNTING: &str = include_str!("../../docs/counting.md");

/// Returns the block of docs/counting.md with the file of this name.
fn documented(name: &str) -> &'static str {
    let heading = format!("# {name}\n");
    fenced(COUNTING, "toml").into_iter().find(|block| block.starts_with(&heading)).unwrap()
}

#[test]
fn the_examples_of_the_document_are_what_is_printed() {
    let config = documented("config.toml").replace("/etc/anomaly-counter/", "");
    let cases = "[[case]]\nsignature = { namespace = \"dev-ada\" }\nrule = \"dev\"\n";
    let files = [
        ("config.toml", &config[..]),
        ("rules.toml", documented("rules.toml")),
        ("cases.toml", cases),
    ];
    let blocks = fenced(COUNTING, "console").into_iter();
    let block = blocks.filter(|block| block.contains("rules test")).collect::<Vec<_>>();
    let [block] = block[..] else { panic!("{block:?}") };
    let mut commands = 0;
    for example in block.strip_prefix("$ ").unwrap().split("\n$ ") {
        let (command, shown) = example.split_once('\n').unwrap_or((example, ""));
        let command = command.split(" #").next().unwrap().trim_end();
        let command = command.strip_prefix("anomaly-counter ").unwrap();
        // JSON is the last argument, and has no blanks.
        let arguments: Vec<&str> = command.split(' ').map(|word| word.trim_matches('\'')).collect();
        let printed = run_with(&files, &arguments).succeeded().stdout;
        assert!(shown.is_empty() || printed.trim_end() == shown.trim_end(), "{command}: {printed}");
        commands += 1;
    }
    assert_eq!(commands, 3);
}

#[test]
fn the_complaints_in_the_document_are_those_of_a_start() {
    let rule = |name: &str, rest: &str| format!("[[rule]]\nname = \"{name}\"\n{rest}\n");
    let of = |job: &str| rule(job, &format!("match = ['job=\"{job}\"']"));
    for (begin, rules) in [
        (
            "rule 2 \"batch\": ",
            [of("one"), rule("batch", "levels = { ESCALATE = [\"5 in 24\"] }")].concat(),
        ),
        ("rule 4 \"late\": ", [of("one"), of("two"), rule("all", ""), of("late")].concat()),
        (
            "rule 1 \"api\": ",
            rule("api", "levels = { REPEAT = [\"5 in 24h\"], ESCALATE = [\"5 in 24h\"] }"),
        ),
    ] {
        let mut lines = COUNTING.lines().filter_map(|line| line.strip_prefix("    "));
        let line = lines.find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}"));
        let printed = run_with(&[("rules.toml", &rules)], &["check-config"]).failed().printed();
        assert!(printed.contains(line), "{line}: {printed}");
    }
}
