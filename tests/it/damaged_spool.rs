//! A damaged spool: readable records are kept, settled ones do not come back, and a start that ends
//! too early, or on a full disk, loses nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anomaly_counter::{
    domain::Operation,
    spool::{Rejection, Settlement, Spool, SpoolConfig, SpoolOpenError, SpoolWrite},
};
use tempfile::TempDir;

use crate::support::{Ended, anomaly_counter, occurrence, start_of_tests};

const CONFIG: SpoolConfig = SpoolConfig { max_bytes: 64 << 20 };
const TIMEOUT: Duration = Duration::from_secs(60);

fn file_in(dir: &TempDir) -> PathBuf {
    dir.path().join("spool.redb")
}

fn write(id: &str) -> SpoolWrite {
    let operation = Operation::Occurrence(occurrence(7, id, start_of_tests()));
    SpoolWrite { operation, maybe_sent: false }
}

fn writes(ids: std::ops::Range<u32>) -> Vec<SpoolWrite> {
    ids.map(|id| write(&id.to_string())).collect()
}

fn try_open(dir: &TempDir) -> Result<(Spool, Vec<(u64, String)>), SpoolOpenError> {
    let mut waiting = Vec::new();
    let spool = Spool::open(dir.path(), CONFIG, TIMEOUT, start_of_tests(), |spooled| {
        waiting.push((spooled.sequence, spooled.operation.id().to_string()));
    })?;
    Ok((spool, waiting))
}

/// Opens the spool, and returns it with the sequences and ids of the waiting writes.
fn open(dir: &TempDir) -> (Spool, Vec<(u64, String)>) {
    try_open(dir).unwrap()
}

fn ids(waiting: &[(u64, String)]) -> Vec<&str> {
    waiting.iter().map(|(_, id)| id.as_str()).collect()
}

/// Makes a redb file unreadable, and leaves its records unchanged.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes[..64].fill(0);
    fs::write(file, bytes).unwrap();
}

fn names(dir: &TempDir) -> Vec<String> {
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

fn set_aside(dir: &TempDir) -> usize {
    names(dir).iter().filter(|name| name.starts_with("spool.damaged-")).count()
}

/// Creates a damaged spool in which the writes 0 to 9 wait.
async fn with_a_damaged_file() -> TempDir {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    spool.append(writes(0..10)).await.unwrap();
    drop(spool);
    damage(&file_in(&dir));
    dir
}

const ALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[tokio::test]
async fn settled_writes_do_not_come_back_from_a_damaged_file() {
    let (dir, now) = (TempDir::new().unwrap(), start_of_tests());
    let (spool, _) = open(&dir);
    spool.append(writes(0..3_000)).await.unwrap();
    let page = spool.waiting(0, 10_000, usize::MAX).await.unwrap();
    let sequence = |id: usize| page[id].sequence;
    let rejection = |id: usize| Rejection {
        sequence: sequence(id),
        reason: format!("refused {id}"),
        maybe_sent: true,
    };
    // Settles writes in order, out of order, and all others except a few.
    let applied = [0, 1, 2, 7, 9].map(sequence).to_vec();
    let rejected = vec![rejection(5), rejection(6)];
    let settlement = Settlement { applied, rejected, next_page: None };
    spool.settle(settlement, now).await.unwrap();
    let applied = (10..2_998).map(sequence).collect();
    let settlement = Settlement { applied, ..Settlement::default() };
    spool.settle(settlement, now).await.unwrap();
    assert!(spool.drop_dead(sequence(6)).await.unwrap());
    spool.append(vec![write("last")]).await.unwrap();
    drop(spool);
    damage(&file_in(&dir));

    let (spool, waiting) = open(&dir);
    assert_eq!(ids(&waiting), ["3", "4", "8", "2998", "2999", "last"]);
    assert_eq!(waiting[0].0, sequence(3), "each keeps its place");
    let letters = spool.dead_letters(0, 100, usize::MAX).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].sequence, sequence(5));
    assert_eq!(letters[0].reason, "refused 5");
    assert_eq!(set_aside(&dir), 1);

    // The salvaged file is damaged too.
    let settlement = Settlement { applied: vec![sequence(4)], ..Settlement::default() };
    spool.settle(settlement, now).await.unwrap();
    assert_eq!(spool.revive_dead(vec![sequence(5)]).await.unwrap(), [sequence(5)]);
    drop(spool);
    damage(&file_in(&dir));
    let (spool, waiting) = open(&dir);
    assert_eq!(ids(&waiting), ["3", "8", "2998", "2999", "last", "5"]);
    assert!(spool.dead_letters(0, 100, usize::MAX).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_empty_spool_is_empty_after_a_salvage_too() {
    let (dir, now) = (TempDir::new().unwrap(), start_of_tests());
    let (spool, _) = open(&dir);
    for _ in 0..3 {
        spool.append(writes(0..500)).await.unwrap();
        let page = spool.waiting(0, 1_000, usize::MAX).await.unwrap();
        let applied = page.iter().map(|spooled| spooled.sequence).collect();
        spool.settle(Settlement { applied, ..Settlement::default() }, now).await.unwrap();
    }
    drop(spool);
    damage(&file_in(&dir));
    let (spool, waiting) = open(&dir);
    assert_eq!(waiting, []);
    // A sequence that is known as settled is not given out again.
    spool.append(vec![write("new")]).await.unwrap();
    drop(spool);
    damage(&file_in(&dir));
    assert_eq!(ids(&open(&dir).1), ["new"]);
}

#[tokio::test]
async fn an_interrupted_salvage_is_begun_again() {
    for left_behind in [&b""[..], b"half of it"] {
        let dir = with_a_damaged_file().await;
        fs::write(dir.path().join("spool.salvaged"), left_behind).unwrap();
        fs::write(dir.path().join("spool.unfinished"), left_behind).unwrap();
        assert_eq!(ids(&open(&dir).1), ALL);
        assert_eq!(set_aside(&dir), 1);
        assert!(!dir.path().join("spool.salvaged").exists());
    }
}

#[tokio::test]
async fn a_salvage_that_ended_between_its_two_renames_goes_on() {
    let dir = with_a_damaged_file().await;
    drop(open(&dir));
    // Restores the state after the first rename.
    fs::rename(file_in(&dir), dir.path().join("spool.salvaged")).unwrap();
    assert_eq!(ids(&open(&dir).1), ALL);
    assert_eq!(set_aside(&dir), 1);
    assert!(!dir.path().join("spool.salvaged").exists());
}

#[tokio::test]
async fn a_half_salvaged_file_beside_a_whole_one_is_removed() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    spool.append(writes(0..10)).await.unwrap();
    drop(spool);
    fs::write(dir.path().join("spool.salvaged"), "half of it").unwrap();
    assert_eq!(ids(&open(&dir).1), ALL);
    assert_eq!(set_aside(&dir), 0);
    assert!(!dir.path().join("spool.salvaged").exists());
}

#[tokio::test]
async fn a_file_cut_short_is_damage_and_not_an_empty_spool() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    spool.append(writes(0..10)).await.unwrap();
    drop(spool);
    let whole = fs::read(file_in(&dir)).unwrap();
    for length in [0, 1, 8, 9, 64, 100, 320, 511, 4_096, whole.len() / 2, whole.len() - 1] {
        let dir = TempDir::new().unwrap();
        fs::write(file_in(&dir), &whole[..length]).unwrap();
        let (spool, waiting) = open(&dir);
        assert_eq!(set_aside(&dir), 1, "cut to {length}: it is set aside");
        assert!(length < whole.len() - 1 || ids(&waiting) == ALL, "the records are all there");
        spool.append(vec![write("new")]).await.unwrap();
    }
}

#[test]
fn an_interrupted_first_start_is_no_damage() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("spool.unfinished"), "").unwrap();
    assert_eq!(open(&dir).1, []);
    assert_eq!(set_aside(&dir), 0);
    assert!(!dir.path().join("spool.unfinished").exists());
}

/// Damages the file of a killed process byte by byte in its head, and page by page behind it.
async fn no_damage_loses_the_last_commit(with_witness: bool) {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    spool.append(writes(0..5)).await.unwrap();
    spool.append(writes(5..10)).await.unwrap();
    // The files as they are when the process is killed.
    let killed = fs::read(file_in(&dir)).unwrap();
    let witness = fs::read(dir.path().join("spool.witness")).unwrap();
    drop(spool);
    let head = (0..320).step_by(8);
    let pages = (4_096..killed.len()).step_by(4_096);
    for position in head.chain(pages) {
        let mut damaged = killed.clone();
        damaged[position] ^= 0x11;
        let dir = TempDir::new().unwrap();
        fs::write(file_in(&dir), damaged).unwrap();
        if with_witness {
            fs::write(dir.path().join("spool.witness"), &witness).unwrap();
        }
        let (_, waiting) = open(&dir);
        assert_eq!(ids(&waiting), ALL, "byte {position} is damaged");
    }
}

#[tokio::test]
async fn a_damaged_byte_does_not_lose_the_last_commit_of_a_killed_process() {
    no_damage_loses_the_last_commit(true).await;
}

#[tokio::test]
async fn the_last_commit_is_missed_without_a_witness_too() {
    no_damage_loses_the_last_commit(false).await;
}

#[tokio::test]
async fn no_damaged_sector_causes_a_panic_or_stays_unreported() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    spool.append(writes(0..300)).await.unwrap();
    let killed = fs::read(file_in(&dir)).unwrap();
    drop(spool);
    for first in (0..killed.len()).step_by(512) {
        let mut damaged = killed.clone();
        damaged[first..first + 512].fill(0xA5);
        let dir = TempDir::new().unwrap();
        fs::write(file_in(&dir), damaged).unwrap();
        let (spool, waiting) = open(&dir);
        let letters = spool.dead_letters(0, 1_000, usize::MAX).await.unwrap();
        let is_said = set_aside(&dir) == 1 || !letters.is_empty();
        assert!(waiting.len() == 300 || is_said, "sector at {first}: {} wait", waiting.len());
    }
}

#[tokio::test]
async fn a_page_of_the_queue_is_bounded_in_bytes() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = open(&dir);
    spool.append(writes(0..10)).await.unwrap();
    let one = spool.waiting(0, 1, usize::MAX).await.unwrap()[0].bytes;
    for (max_bytes, expected) in [(0, 1), (one, 1), (3 * one, 3), (3 * one + 1, 3), (100 * one, 10)]
    {
        let page = spool.waiting(0, 10, max_bytes).await.unwrap();
        assert_eq!(page.len(), expected, "of {max_bytes} bytes");
    }
}

#[tokio::test]
async fn a_damaged_spool_on_a_full_disk_is_left_as_it_is() {
    let dir = with_a_damaged_file().await;
    let damaged = fs::read(file_in(&dir)).unwrap();
    for _ in 0..3 {
        // The new file can't grow as large as a redb file is.
        let service = anomaly_counter(&[]);
        let mut command = Command::new("prlimit");
        command.arg("--fsize=8192:").arg(service.get_program());
        command.env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0");
        command.env("ANOMALY_COUNTER__REDIS__URL", "redis://127.0.0.1:1");
        command.env("ANOMALY_COUNTER__DATA_DIR", dir.path());
        let stderr = Ended::of(&mut command).failed().stderr;
        assert!(stderr.contains("is damaged"), "{stderr}");
        assert!(stderr.contains("Nothing is lost"), "{stderr}");
        assert!(stderr.contains("Free about"), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(fs::read(file_in(&dir)).unwrap(), damaged);
        assert_eq!(set_aside(&dir), 0);
        assert!(!dir.path().join("spool.salvaged").exists());
    }
    assert_eq!(ids(&open(&dir).1), ALL);
}
