//! The file with the newest rows of the embedded store's journal: what was acknowledged is there
//! after a kill, a loss of power and damage to either file, or the start is refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anomaly_counter::{
    domain::AnomalyKey,
    store::{EmbeddedOpenError, EmbeddedStore, Store},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Ended, Service, anomaly_counter, eventually, fix_mark, key_of, occurrence, open_embedded,
    start_of_tests,
};

const FILE: &str = "anomalies.redb";
const JOURNAL: &str = "anomalies.journal";
/// Is not synced, and is not there after a loss of power.
const ACKNOWLEDGED: &str = "anomalies.acknowledged";

const BLOCK_BYTES: usize = 4_096;

async fn record(store: &EmbeddedStore, number: u64) {
    let now = start_of_tests();
    let event = occurrence(number, "once", now);
    assert!(store.record(now.into(), vec![event]).await.iter().all(Result::is_ok));
}

/// Returns which of the first anomalies are known.
async fn known(store: &EmbeddedStore, anomalies: u64) -> Vec<u64> {
    let keys = (0..anomalies).map(AnomalyKey::from_bits).collect();
    let stats = store.stats(start_of_tests().into(), keys).await;

    let known = (0..).zip(stats).filter(|(_, stats)| matches!(stats, Ok(Some(_))));
    known.map(|(number, _)| number).collect()
}

/// Copies the files of a folder, as the end of a process that is killed leaves them.
fn copy(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

const ANOMALIES: u64 = 40;

/// A killed store with anomalies, each of which was recorded in a batch of its own. The journal was
/// moved to redb after the tenth.
async fn killed_store() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open_embedded(dir.path()).unwrap();
    for number in 0..ANOMALIES {
        record(&store, number).await;
        if number == 9 {
            let now = start_of_tests();
            store.mark_fixed(now.into(), fix_mark(0, "mark", now)).await.unwrap();
        }
    }
    let killed = copy(dir.path());
    store.close().await;
    killed
}

fn journal(dir: &TempDir) -> PathBuf {
    dir.path().join(JOURNAL)
}

#[track_caller]
fn refusal(dir: &TempDir) -> String {
    let text = open_embedded(dir.path()).unwrap_err().to_string();
    assert!(text.contains(dir.path().join(FILE).to_str().unwrap()), "{text}");
    assert!(text.contains("`anomaly-counter recover`"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_store_has_all_that_was_recorded_however_often_it_is_killed() {
    let mut killed = killed_store().await;
    for number in ANOMALIES..ANOMALIES + 5 {
        let store = open_embedded(killed.path()).unwrap();
        assert_eq!(known(&store, number + 1).await, (0..number).collect::<Vec<_>>());
        record(&store, number).await;
        let next = copy(killed.path());
        store.close().await;
        killed = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_killed_loses_nothing_either() {
    let killed = killed_store().await;
    let whole = fs::read(journal(&killed)).unwrap();
    // It has moved the rows to redb, and has not written to the journal.
    let store = open_embedded(killed.path()).unwrap();
    let started = copy(killed.path());
    drop(store);
    assert!(fs::read(journal(&started)).unwrap() == whole);
    for _ in 0..2 {
        let store = open_embedded(started.path()).unwrap();
        assert_eq!(known(&store, ANOMALIES).await, (0..ANOMALIES).collect::<Vec<_>>());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_in_the_journal_it_starts_with_right_data_or_refuses() {
    let killed = killed_store().await;
    let all: Vec<u64> = (0..ANOMALIES).collect();
    let (mut started, mut refused, mut without_last) = (0, 0, 0);
    for seed in 0..120_u64 {
        let dir = copy(killed.path());
        let loses_power = seed % 2 == 0;
        if loses_power {
            fs::remove_file(dir.path().join(ACKNOWLEDGED)).unwrap();
        }
        let mut bytes = fs::read(journal(&dir)).unwrap();
        let random = &mut StdRng::seed_from_u64(seed);
        // Some of the blocks have no rows.
        let position = random.random_range(0..BLOCK_BYTES * (ANOMALIES as usize + 2));
        let what = match seed % 5 {
            0 | 1 => {
                let used = (position..bytes.len()).find(|at| bytes[*at] != 0).unwrap_or(position);
                bytes[used] ^= 1 << random.random_range(0..8);
                format!("a flipped bit in {used}")
            }
            2 => {
                let sector = position / 512 * 512;
                bytes[sector..sector + 512].fill(0xA7);
                format!("another sector at {sector}")
            }
            3 => {
                let block = position / BLOCK_BYTES * BLOCK_BYTES;
                bytes[block..block + BLOCK_BYTES].fill(0);
                format!("zeros at {block}")
            }
            _ => {
                bytes.truncate(position);
                format!("cut to {position}")
            }
        };
        fs::write(journal(&dir), &bytes).unwrap();
        match open_embedded(dir.path()) {
            Ok(store) => {
                started += 1;
                let known = known(&store, ANOMALIES).await;
                if loses_power && known != all {
                    // As torn: whether somebody was answered for it, nobody knows.
                    without_last += 1;
                    assert_eq!(known, all[..all.len() - 1], "{what}");
                } else {
                    assert_eq!(known, all, "{what}");
                }
                store.close().await;
            }
            Err(fault) => {
                refused += 1;
                assert!(matches!(fault, EmbeddedOpenError::Unreadable { .. }), "{what}: {fault}");
                let after = fs::read(journal(&dir)).unwrap();
                assert!(after == bytes, "{what}: it is left as it is");
            }
        }
    }
    assert!(refused > 40 && started > 10, "{refused} refused, {started} started");
    assert!(without_last < 15, "{without_last} without the last");
}

#[tokio::test]
async fn a_damaged_last_row_is_refused_after_a_kill_and_left_out_after_a_loss_of_power() {
    let killed = killed_store().await;
    let mut bytes = fs::read(journal(&killed)).unwrap();
    // The rows after the mark, and none behind them.
    let last = BLOCK_BYTES * (ANOMALIES as usize - 10);
    assert_eq!(&bytes[last..last + 5], b"\x06\xACrow");
    assert_eq!(bytes[last + BLOCK_BYTES], 0);
    bytes[last + 20] ^= 1;
    fs::write(journal(&killed), &bytes).unwrap();
    assert!(refusal(&killed).contains("its last commit is damaged"));
    fs::remove_file(killed.path().join(ACKNOWLEDGED)).unwrap();
    let store = open_embedded(killed.path()).unwrap();
    assert_eq!(known(&store, ANOMALIES).await, (0..ANOMALIES - 1).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test]
async fn a_journal_that_is_missing_or_of_another_store_is_refused_and_recovery_goes_on_without_it()
{
    let (killed, other) = (killed_store().await, killed_store().await);
    let whole = fs::read(journal(&killed)).unwrap();
    fs::remove_file(journal(&killed)).unwrap();
    assert!(refusal(&killed).contains("its journal, anomalies.journal beside it, is missing"));
    fs::copy(journal(&other), journal(&killed)).unwrap();
    assert!(refusal(&killed).contains("belongs to another file"));
    let checked = copy(killed.path());
    fs::write(journal(&killed), &whole).unwrap();
    let store = open_embedded(killed.path()).unwrap();
    assert_eq!(known(&store, ANOMALIES).await.len(), ANOMALIES as usize, "it is back");
    store.close().await;

    let mut command = anomaly_counter(&["recover"]);
    command.env("ANOMALY_COUNTER__DATA_DIR", checked.path());
    let report = Ended::of(&mut command).succeeded().stdout;
    assert!(report.contains("recovered: 10 anomalies"), "{report}");
    assert!(report.contains("not found: 30 batches of the journal"), "{report}");
    let store = open_embedded(checked.path()).unwrap();
    assert_eq!(known(&store, ANOMALIES).await, (0..10).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test]
async fn a_recovery_takes_the_rows_of_the_journal_that_read_well() {
    let killed = killed_store().await;
    let mut bytes = fs::read(journal(&killed)).unwrap();
    // That of the thirteenth.
    bytes[3 * BLOCK_BYTES + 20] ^= 1;
    fs::write(journal(&killed), bytes).unwrap();
    assert!(refusal(&killed).contains("lacks batch "));
    let mut command = anomaly_counter(&["recover"]);
    command.env("ANOMALY_COUNTER__DATA_DIR", killed.path());
    let report = Ended::of(&mut command).succeeded().stdout;
    assert!(report.contains("not found: 1 batches of the journal"), "{report}");
    assert!(!journal(&killed).exists(), "it has another name");
    let store = open_embedded(killed.path()).unwrap();
    let left: Vec<u64> = (0..ANOMALIES).filter(|number| *number != 12).collect();
    assert_eq!(known(&store, ANOMALIES).await, left);
    store.close().await;
}

#[tokio::test]
async fn a_commit_that_moves_rows_and_is_taken_back_loses_none_of_them() {
    const EVENTS: u64 = 10;
    let dir = TempDir::new().unwrap();
    let store = open_embedded(dir.path()).unwrap();
    for number in 0..EVENTS {
        record(&store, number).await;
    }
    let now = start_of_tests();
    store.mark_fixed(now.into(), fix_mark(0, "mark", now)).await.unwrap();
    let moved = copy(dir.path());
    store.close().await;
    fs::remove_file(moved.path().join(ACKNOWLEDGED)).unwrap();
    let (mut with_mark, mut without) = (0, 0);
    // In the header of redb, of which one half is for the commit before.
    for byte in (0..320).step_by(4) {
        let damaged = copy(moved.path());
        let file = damaged.path().join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes[byte] ^= 1;
        fs::write(&file, bytes).unwrap();
        let Ok(store) = open_embedded(damaged.path()) else { continue };
        assert_eq!(known(&store, EVENTS).await, (0..EVENTS).collect::<Vec<_>>(), "byte {byte}");
        let details = store.details(now.into(), AnomalyKey::from_bits(0)).await.unwrap();
        *if details.unwrap().fix.is_some() { &mut with_mark } else { &mut without } += 1;
        store.close().await;
    }
    assert!(with_mark > 0 && without > 0, "{with_mark} with the mark, {without} without");
}

#[tokio::test]
async fn a_file_that_is_older_than_its_journal_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open_embedded(dir.path()).unwrap();
    record(&store, 0).await;
    let before = fs::read(dir.path().join(FILE)).unwrap();
    let now = start_of_tests();
    // Moves what is in the journal.
    store.mark_fixed(now.into(), fix_mark(0, "mark", now)).await.unwrap();
    record(&store, 1).await;
    let mixed = copy(dir.path());
    store.close().await;
    fs::write(mixed.path().join(FILE), before).unwrap();
    assert!(refusal(&mixed).contains("lacks batch "));
}

#[tokio::test]
async fn a_store_that_was_closed_is_one_file_and_a_copy_of_it_is_a_backup() {
    let dir = TempDir::new().unwrap();
    let store = open_embedded(dir.path()).unwrap();
    record(&store, 0).await;
    store.close().await;
    drop(store);
    assert!(!dir.path().join(JOURNAL).exists());
    let backup = fs::read(dir.path().join(FILE)).unwrap();

    // It goes on, is killed, and is replaced by the backup.
    let store = open_embedded(dir.path()).unwrap();
    record(&store, 1).await;
    let killed = copy(dir.path());
    store.close().await;
    fs::write(killed.path().join(FILE), backup).unwrap();
    let store = open_embedded(killed.path()).unwrap();
    assert_eq!(known(&store, 2).await, [0]);
    let names = fs::read_dir(killed.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("anomalies.journal-")), "{names:?}");
    record(&store, 2).await;
    let again = copy(killed.path());
    store.close().await;
    let store = open_embedded(again.path()).unwrap();
    assert_eq!(known(&store, 3).await, [0, 2]);
    store.close().await;
}

#[tokio::test]
async fn a_start_with_no_file_beside_a_journal_that_was_left_is_empty() {
    let killed = killed_store().await;
    fs::rename(killed.path().join(FILE), killed.path().join("anomalies.away")).unwrap();
    let store = open_embedded(killed.path()).unwrap();
    assert_eq!(known(&store, ANOMALIES).await, [0_u64; 0]);
    store.close().await;
}

#[tokio::test]
async fn without_its_journal_a_running_service_refuses_and_goes_on_when_it_is_back() {
    let service = Service::embedded().await;
    let path = service.data_dir().join(JOURNAL);
    let away = path.with_extension("away");
    let event = |id: u64| json!({"alert_name": "HighCPU", "event_id": id.to_string()});
    assert_eq!(service.post("/anomalies", &event(1)).await.ok()["count_1h"], 1);
    for replaced in [false, true] {
        fs::rename(&path, &away).unwrap();
        if replaced {
            fs::copy(&away, &path).unwrap();
        }
        let detail = service.post("/anomalies", &event(1_000)).await.problem(503);
        assert!(detail.contains("data/anomalies.journal"), "{detail}");
        assert!(detail.contains("had no effect"), "{detail}");
        let frequency = format!("/anomalies/{}/frequency", key_of("HighCPU"));
        service.get(&frequency).await.problem(503);
        fs::rename(&away, &path).unwrap();
        eventually("it is ready", || async {
            (service.get("/readyz").await.ok()["status"] == "ready").then_some(())
        })
        .await;
        assert_eq!(service.get(&frequency).await.ok()["count_1h"], 1);
    }
    assert_eq!(service.post("/anomalies", &event(2)).await.ok()["count_1h"], 2);
    let service = service.restart().await;
    assert_eq!(service.post("/anomalies", &event(3)).await.ok()["count_1h"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_file_has_room_for_is_moved_and_is_there_after_a_kill() {
    const LARGE: u64 = 200;
    let mut service = Service::embedded().await;
    let large =
        |number: u64| json!({"alert_name": format!("Alert{number}"), "trace": "x".repeat(15_000)});
    let path = service.data_dir().join(JOURNAL);
    let size = fs::metadata(&path).unwrap().len();
    for number in 0..LARGE {
        service.post("/anomalies", &large(number)).await.ok();
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), size, "it does not grow");
    service.kill();
    let service = service.successor().await;
    for number in 0..LARGE {
        let path = format!("/anomalies/{}/frequency", key_of(&format!("Alert{number}")));
        assert_eq!(service.get(&path).await.ok()["count_1h"], 1);
    }
}
