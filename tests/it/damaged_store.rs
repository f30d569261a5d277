//! A damaged file of the embedded store: it is refused with the remedies, whatever is damaged, and
//! `anomaly-counter recover` keeps everything that can be read.

use std::{fs, path::Path, process::Command};

use anomaly_counter::{
    counter::SystemClock,
    domain::AnomalyKey,
    store::{EmbeddedOpenError, EmbeddedStore, Store},
};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    EXACT_EVENTS, Ended, Service, anomaly_counter, eventually, fix_mark, keeping, key_of,
    occurrence, open_embedded, start_of_tests, store_limits,
};

const FILE: &str = "anomalies.redb";
/// Has the newest rows of the journal, unless the store was closed.
const JOURNAL: &str = "anomalies.journal";
/// The beginning of a row: its version and its mark.
const ROW_BEGINNING: &[u8] = b"\x06\xACrow";
/// The bytes of a row before its payload.
const ROW_HEADER_BYTES: usize = 14;

const ANOMALIES: u64 = 60;

/// Creates a file with anomalies, of which number `n` has `n % 7 + 1` occurrences, and with every
/// kind of row: signatures are written by a checkpoint.
async fn file_with_anomalies() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let limits = anomaly_counter::store::CheckpointLimits {
        journal_bytes: 4_000,
        step_bytes: 1_000,
        step_journal_rows: 10,
    };
    let store = EmbeddedStore::open_with(dir.path(), keeping(EXACT_EVENTS), store_limits(), limits)
        .unwrap();
    let now = start_of_tests();
    for round in 0..7 {
        let events = (0..ANOMALIES).filter(|number| number % 7 >= round);
        let events = events.map(|number| occurrence(number, &format!("{round}"), now));
        assert!(store.record(now.into(), events.collect()).await.iter().all(Result::is_ok));
        store.mark_fixed(now.into(), fix_mark(round, &format!("mark-{round}"), now)).await.unwrap();
    }
    store.close().await;
    fs::read(dir.path().join(FILE)).unwrap()
}

/// Returns the anomalies whose counts are not as they were.
async fn wrong(store: &EmbeddedStore) -> Vec<u64> {
    let now = start_of_tests();
    let keys = (0..ANOMALIES).map(AnomalyKey::from_bits).collect();
    let stats = store.stats(now.into(), keys).await;
    let mut wrong = Vec::new();
    for (number, stats) in (0..).zip(stats) {
        let count = stats.unwrap().map_or(0, |stats| stats.counts.hour);
        let details = store.details(now.into(), AnomalyKey::from_bits(number)).await;
        let has_signature = details.unwrap().is_some_and(|d| d.signature_json.is_some());
        if count != number % 7 + 1 || !has_signature {
            wrong.push(number);
        }
    }
    wrong
}

/// Damages a file as disks do.
fn damage(bytes: &mut Vec<u8>, random: &mut impl Rng) -> String {
    let position = random.random_range(0..bytes.len());
    match random.random_range(0..5) {
        0 => {
            let used = (position..bytes.len()).find(|at| bytes[*at] != 0).unwrap_or(position);
            bytes[used] ^= 1 << random.random_range(0..8);
            format!("a flipped bit in {used}")
        }
        1 => {
            bytes[position] = bytes[position].wrapping_add(random.random_range(1..=255));
            format!("another byte at {position}")
        }
        2 => {
            let sector = position / 512 * 512;
            random.fill_bytes(&mut bytes[sector..sector + 512]);
            format!("another sector at {sector}")
        }
        3 => {
            let page = position / 4_096 * 4_096;
            bytes[page..page + 4_096].fill(0);
            format!("zeros at {page}")
        }
        _ => {
            bytes.truncate(position);
            format!("cut to {position}")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_a_start_has_right_data_or_is_refused() {
    let pristine = file_with_anomalies().await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join(FILE);
    let (mut started, mut refused) = (0, 0);
    for seed in 0..150 {
        let mut bytes = pristine.clone();
        let what = damage(&mut bytes, &mut StdRng::seed_from_u64(seed));
        fs::write(&file, &bytes).unwrap();
        match open_embedded(dir.path()) {
            Ok(store) => {
                started += 1;
                assert_eq!(wrong(&store).await, [0_u64; 0], "{what}");
                store.close().await;
            }
            Err(fault) => {
                refused += 1;
                let text = fault.to_string();
                assert!(text.contains(file.to_str().unwrap()), "{what}: {text}");
                assert!(text.contains("Restore it from a backup"), "{what}: {text}");
                assert!(text.contains("`anomaly-counter recover`"), "{what}: {text}");
                assert!(text.contains("move it away"), "{what}: {text}");
            }
        }
    }
    assert!(refused > 50 && started > 5, "{refused} refused, {started} started");
}

#[tokio::test]
async fn a_damaged_last_commit_is_not_undone_silently() {
    let service = killed_service().await;
    // In the row of the last one only.
    assert!(damage_rows_with(&service.data_dir().join(JOURNAL), "Alert49\"") > 0);
    let fault = open_embedded(&service.data_dir()).unwrap_err();
    assert!(matches!(fault, EmbeddedOpenError::Unreadable { .. }), "{fault}");
    let report = Ended::of(&mut recovery(&service.data_dir())).succeeded().stdout;
    assert!(report.contains("recovered: 49 anomalies"), "{report}");
    assert!(report.contains("damaged and left out"), "{report}");
}

#[tokio::test]
async fn a_damaged_header_of_a_killed_file_loses_no_acknowledged_commit() {
    const HEADER_BYTES: usize = 320;
    const FLAGS: usize = 9;
    let service = killed_service().await;
    let (dir, file) = (service.data_dir(), service.data_dir().join(FILE));
    let acknowledged = dir.join("anomalies.acknowledged");
    let (pristine, noted) = (fs::read(&file).unwrap(), fs::read(&acknowledged).unwrap());
    let journal = fs::read(dir.join(JOURNAL)).unwrap();
    let in_bytes = (0..HEADER_BYTES).step_by(8).map(|byte| (byte, 1));
    let flags = (0..8).map(|bit| (FLAGS, 1 << bit));
    let (mut started, mut last_commit) = (0, 0);
    for (byte, bit) in in_bytes.chain(flags) {
        let mut bytes = pristine.clone();
        bytes[byte] ^= bit;
        fs::write(&file, &bytes).unwrap();
        fs::write(&acknowledged, &noted).unwrap();
        fs::write(dir.join(JOURNAL), &journal).unwrap();
        match open_embedded(&dir) {
            Ok(store) => {
                started += 1;
                let keys = (0..50).map(|number| key_of(&format!("Alert{number}")));
                let known = store.stats(SystemClock.now().into(), keys.collect()).await;
                let unknown = known.into_iter().filter(|stats| !matches!(stats, Ok(Some(_))));
                assert_eq!(unknown.count(), 0, "byte {byte}");
                store.close().await;
            }
            Err(fault) => {
                let text = fault.to_string();
                if text.contains("its last commit is damaged") || text.contains("lacks batch") {
                    last_commit += 1;
                    assert!(fs::read(&file).unwrap() == bytes, "byte {byte}: it is unchanged");
                }
                assert!(
                    open_embedded(&dir).is_err(),
                    "byte {byte}: another attempt begins with no less"
                );
            }
        }
    }
    assert!(started > 5 && last_commit > 5, "{started} started, {last_commit} had lost a commit");
}

#[tokio::test]
async fn an_empty_file_is_damage_and_no_empty_store() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(FILE), "").unwrap();
    let fault = open_embedded(dir.path()).unwrap_err();
    assert!(matches!(fault, EmbeddedOpenError::Unreadable { .. }), "{fault}");
    assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), 0, "it is unchanged");
    let recovered = Ended::of(&mut recovery(dir.path())).failed();
    assert!(recovered.stderr.contains("nothing in it is readable"), "{}", recovered.stderr);
}

#[test]
fn a_new_file_that_was_never_completed_is_begun_again() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("anomalies.new"), "half of a file").unwrap();
    open_embedded(dir.path()).unwrap();
    assert!(dir.path().join(FILE).exists());
    assert!(!dir.path().join("anomalies.new").exists());
}

#[test]
fn of_two_first_starts_one_gets_the_file_and_the_other_says_why_not() {
    for round in 0..20 {
        let dir = TempDir::new().unwrap();
        let start = std::sync::Barrier::new(4);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let opening = || {
                start.wait();
                open_embedded(dir.path())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(opening)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let of_others = opened.iter().filter_map(|opened| opened.as_ref().err());
        for fault in of_others {
            assert!(matches!(fault, EmbeddedOpenError::InUse { .. }), "round {round}: {fault}");
        }
        assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1, "round {round}");
    }
}

/// Returns the command `recover`.
fn recovery(data_dir: &Path) -> Command {
    let mut command = anomaly_counter(&["recover"]);
    command.env("ANOMALY_COUNTER__DATA_DIR", data_dir);
    command
}

fn event(number: u64) -> Value {
    json!({"alert_name": format!("Alert{number}"), "event_id": "once"})
}

async fn count(service: &Service, number: u64) -> Value {
    let path = format!("/anomalies/{}/frequency", key_of(&format!("Alert{number}")));
    service.get(&path).await.body["count_1h"].clone()
}

/// Returns the positions of the rows in a file.
fn rows(bytes: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(ROW_BEGINNING.len()).enumerate();
    windows.filter(|(_, window)| *window == ROW_BEGINNING).map(|(position, _)| position).collect()
}

/// Damages every row that holds `text`. Returns their number.
fn damage_rows_with(file: &Path, text: &str) -> usize {
    let mut bytes = fs::read(file).unwrap();
    let mut damaged = 0;
    let begins = rows(&bytes);
    for (index, &begin) in begins.iter().enumerate() {
        let end = begins.get(index + 1).copied().unwrap_or(bytes.len());
        let length = u32::from_le_bytes(bytes[begin + 6..begin + 10].try_into().unwrap()) as usize;
        let end = end.min(begin + ROW_HEADER_BYTES + length);
        if bytes[begin..end].windows(text.len()).any(|window| window == text.as_bytes()) {
            bytes[begin + ROW_HEADER_BYTES] ^= 1;
            damaged += 1;
        }
    }
    fs::write(file, bytes).unwrap();
    damaged
}

/// Returns a service that was killed with 50 anomalies, each in a batch of its own.
async fn killed_service() -> Service {
    let mut service = Service::embedded().await;
    for number in 0..50 {
        service.post("/anomalies", &event(number)).await.ok();
    }
    service.kill();
    service
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_recovered_except_for_the_damaged_rows() {
    let service = killed_service().await;
    assert!(damage_rows_with(&service.data_dir().join(JOURNAL), "Alert17\"") > 0);
    let damaged = fs::read(service.data_dir().join(FILE)).unwrap();

    let mut start = anomaly_counter(&[]);
    start.env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0");
    start.env("ANOMALY_COUNTER__DATA_DIR", service.data_dir());
    let refused = Ended::of(&mut start).failed().printed();
    assert!(refused.contains("`anomaly-counter recover`"), "{refused}");
    assert!(!refused.contains("panicked"), "{refused}");

    let report = Ended::of(&mut recovery(&service.data_dir())).succeeded().stdout;
    assert!(report.contains("recovered: 49 anomalies, 49 signatures"), "{report}");
    assert!(report.contains("(batches of the journal)"), "{report}");
    assert!(report.contains("not found: 1 batches of the journal"), "{report}");
    assert!(report.contains("not found: 1 anomalies"), "{report}");
    let path_after = |words: &str| {
        let (_, rest) = report.split_once(words).unwrap_or_else(|| panic!("{report}"));
        rest.lines().next().unwrap()
    };
    assert_eq!(fs::read(path_after("the damaged file is ")).unwrap().len(), damaged.len());
    assert!(Path::new(path_after("its journal is ")).exists());

    let again = Ended::of(&mut recovery(&service.data_dir())).succeeded().stdout;
    assert!(again.contains("is not damaged: there is nothing to recover"), "{again}");

    let service = service.successor().await;
    for number in (0..50).filter(|number| *number != 17) {
        assert_eq!(count(&service, number).await, 1, "Alert{number}");
        let again = service.post("/anomalies", &event(number)).await.ok();
        assert_eq!(again["counted"], false, "the id of Alert{number} is known");
    }
    assert_eq!(count(&service, 17).await, Value::Null);
    let details = service.get(&format!("/anomalies/{}", key_of("Alert18"))).await.ok();
    assert_eq!(details["signature"]["alert_name"], "Alert18");
}

#[tokio::test]
async fn a_recovery_on_a_full_disk_changes_nothing_and_can_be_run_again() {
    let service = killed_service().await;
    let file = service.data_dir().join(FILE);
    assert!(damage_rows_with(&service.data_dir().join(JOURNAL), "Alert17\"") > 0);
    let mut limited = Command::new("prlimit");
    let command = recovery(&service.data_dir());
    limited.arg("--fsize=20000").arg(command.get_program()).args(command.get_args());
    limited.env("ANOMALY_COUNTER__DATA_DIR", service.data_dir());
    let before = fs::read(&file).unwrap();
    let failed = Ended::of(&mut limited).failed();
    assert!(failed.stderr.contains("anomaly-counter: "), "{}", failed.stderr);
    assert!(fs::read(&file).unwrap().len() >= before.len());
    assert!(!service.data_dir().join("anomalies.new").exists(), "no half of a file is left");

    let report = Ended::of(&mut recovery(&service.data_dir())).succeeded().stdout;
    assert!(report.contains("recovered: 49 anomalies"), "{report}");
}

#[tokio::test]
async fn a_recovery_refuses_the_file_of_a_running_service_and_a_missing_file() {
    let service = Service::embedded().await;
    let refused = Ended::of(&mut recovery(&service.data_dir())).failed().stderr;
    assert!(refused.contains("in use by another process"), "{refused}");
    let empty = TempDir::new().unwrap();
    let refused = Ended::of(&mut recovery(empty.path())).failed().stderr;
    assert!(refused.contains("nothing to recover"), "{refused}");
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_a_recovery_gives_a_file_that_starts() {
    let pristine = file_with_anomalies().await;
    let mut recovered = 0;
    for seed in 0..40 {
        let dir = TempDir::new().unwrap();
        let mut bytes = pristine.clone();
        let what = damage(&mut bytes, &mut StdRng::seed_from_u64(seed));
        fs::write(dir.path().join(FILE), &bytes).unwrap();
        if open_embedded(dir.path()).is_ok() {
            continue;
        }
        let report = Ended::of(&mut recovery(dir.path()));
        assert!(!report.stderr.contains("panicked at"), "{what}: {}", report.stderr);
        // Of a file cut to nearly nothing, nothing is left.
        if report.stderr.contains("nothing in it is readable") {
            continue;
        }
        let report = report.succeeded().stdout;
        recovered += 1;
        let store = open_embedded(dir.path()).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        let wrong = wrong(&store).await;
        let says_so = report.contains("damaged and left out") || report.contains("not found");
        assert!(wrong.is_empty() || says_so, "{what}: {wrong:?} are wrong: {report}");
        store.close().await;
    }
    assert!(recovered >= 5, "{recovered}");
}

#[tokio::test]
async fn damage_behind_a_running_service_is_never_served() {
    const LARGE: u64 = 1_000;
    let service = Service::embedded().await;
    // More than is in the page cache, and enough for a checkpoint.
    let large =
        |number: u64| json!({"alert_name": format!("Alert{number}"), "trace": "x".repeat(12_000)});
    for number in 0..LARGE {
        service.post("/anomalies", &large(number)).await.ok();
    }
    let file = service.data_dir().join(FILE);
    eventually("signatures are written", || async {
        let bytes = fs::read(&file).unwrap();
        rows(&bytes).into_iter().any(|row| bytes[row + 5] == b'S').then_some(())
    })
    .await;
    {
        use std::os::unix::fs::FileExt as _;
        let bytes = fs::read(&file).unwrap();
        let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
        for row in rows(&bytes).into_iter().filter(|row| bytes[row + 5] == b'S') {
            open.write_all_at(b"z", (row + 6_000) as u64).unwrap();
        }
    }
    let mut refused = 0;
    for number in 0..LARGE {
        let answer =
            service.get(&format!("/anomalies/{}", key_of(&format!("Alert{number}")))).await;
        if answer.status == 200 {
            let trace = answer.body["metadata"]["trace"].as_str().unwrap();
            assert!(trace.bytes().all(|byte| byte == b'x'), "a damaged signature is served");
        } else {
            answer.problem(503);
            refused += 1;
        }
    }
    assert!(refused > 0, "nothing of what is damaged was read");
    assert!(service.log().contains("a row is damaged"), "{}", service.log());
    assert!(!service.log().contains("panicked"), "{}", service.log());
}
