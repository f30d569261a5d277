//! An announcement: rows that an instance has changed, for the catalogues of the others.
//!
//! It begins with a byte for the version, eight for the instance, and eight for the number of the
//! announcement, by which others notice that they have missed one. Each row follows in 72 bytes:
//! its key; the times of its stats, of the oldest and the newest event, of the mark and of the
//! first firing alert, in microseconds (the lowest number stands for none); four counts, from that
//! of an hour on; the number of repair attempts; and the number of firing alerts (the highest
//! number means that it is not known). All numbers are little-endian. Anything of another form is
//! ignored: an instance of a later version may have written it.

use crate::domain::{AnomalyKey, AnomalyStats, Firing, Timestamp, WindowCounts};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 17;
const ROW_BYTES: usize = 72;
const ABSENT: i64 = i64::MIN;
const UNKNOWN: u32 = u32::MAX;

/// A row as announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnnouncedRow {
    pub(super) key: AnomalyKey,
    pub(super) as_of: Timestamp,
    pub(super) stats: AnomalyStats,
    /// The firing alerts; `None` if they are not known.
    pub(super) firing: Option<Option<Firing>>,
}

/// An announcement of another instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) instance: u64,
    /// The number of the announcement: one more than that of the instance's last one.
    pub(super) number: u64,
    pub(super) rows: Vec<AnnouncedRow>,
}

/// Returns an announcement of rows by an instance.
pub(super) fn encode(instance: u64, number: u64, rows: &[AnnouncedRow]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + rows.len() * ROW_BYTES);
    bytes.push(VERSION);
    bytes.extend(instance.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    for AnnouncedRow { key, as_of, stats, firing } in rows {
        let micros = |time: Option<Timestamp>| time.map_or(ABSENT, Timestamp::as_micros);
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
        bytes.extend(key.to_bits().to_le_bytes());
        bytes.extend(as_of.as_micros().to_le_bytes());
        let since = firing.flatten().map(|firing| firing.since);
        for time in [stats.first_seen, stats.last_seen, stats.fixed_at, since] {
            bytes.extend(micros(time).to_le_bytes());
        }
        let WindowCounts { hour, day, week, month } = stats.counts;
        for number in [hour, day, week, month, stats.repair_attempts] {
            bytes.extend(count(number));
        }
        let episodes = firing.map_or(UNKNOWN, |firing| {
            firing.map_or(0, |firing| u32::try_from(firing.episodes).unwrap_or(UNKNOWN - 1))
        });
        bytes.extend(episodes.to_le_bytes());
    }
    bytes
}

/// Returns the announcement of another instance; `None` for one of this instance, or of another
/// form.
pub(super) fn decode(own_instance: u64, bytes: &[u8]) -> Option<Announcement> {
    let (head, rows) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (version, numbers) = head.split_first()?;
    let (instance, number) = numbers.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number.first_chunk()?);
    let instance = u64::from_le_bytes(*instance);
    if *version != VERSION || instance == own_instance || rows.len() % ROW_BYTES != 0 {
        return None;
    }
    let rows = rows.chunks_exact(ROW_BYTES).filter_map(decode_row).collect();
    Some(Announcement { instance, number, rows })
}

fn decode_row(row: &[u8]) -> Option<AnnouncedRow> {
    let mut rest = row;
    let mut long = || {
        let (number, others) = rest.split_first_chunk::<8>()?;
        rest = others;
        Some(*number)
    };
    let key = AnomalyKey::from_bits(u64::from_le_bytes(long()?));
    let mut time = || {
        let micros = i64::from_le_bytes(long()?);
        Some((micros != ABSENT).then(|| Timestamp::from_micros(micros)))
    };
    let as_of = time()?.unwrap_or(Timestamp::MIN);
    let (first_seen, last_seen, fixed_at, since) = (time()?, time()?, time()?, time()?);
    let mut count = || {
        let (number, others) = rest.split_first_chunk::<4>()?;
        rest = others;
        Some(u64::from(u32::from_le_bytes(*number)))
    };
    let counts = WindowCounts { hour: count()?, day: count()?, week: count()?, month: count()? };
    let repair_attempts = count()?;
    let episodes = count()?;
    let firing = (episodes != u64::from(UNKNOWN)).then(|| {
        let since = since.filter(|_| episodes > 0)?;
        Some(Firing { episodes: episodes as usize, since })
    });
    let stats = AnomalyStats {
        counts,
        extra: Vec::new(),
        is_approximate: false,
        first_seen,
        last_seen,
        repair_attempts,
        fixed_at,
    };
    Some(AnnouncedRow { key, as_of, stats, firing })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn any_row() -> impl Strategy<Value = AnnouncedRow> {
        let time =
            || prop::option::of((0..4_000_000_000_000_000_i64).prop_map(Timestamp::from_micros));
        let count = || 0..=u64::from(u32::MAX);
        let since = (0..4_000_000_000_000_000_i64).prop_map(Timestamp::from_micros);
        let firing =
            (1..1_001_usize, since).prop_map(|(episodes, since)| Firing { episodes, since });
        let firing = prop::option::of(prop::option::of(firing));
        let counts = [count(), count(), count(), count()];
        (any::<u64>(), time(), [time(), time(), time()], counts, firing).prop_map(
            |(key, as_of, [first_seen, last_seen, fixed_at], counts, firing)| {
                let [hour, day, week, month] = counts;
                let counts = WindowCounts { hour, day, week, month };
                let stats = AnomalyStats {
                    counts,
                    first_seen,
                    last_seen,
                    fixed_at,
                    repair_attempts: hour,
                    ..AnomalyStats::default()
                };
                let as_of = as_of.unwrap_or(Timestamp::MIN);
                AnnouncedRow { key: AnomalyKey::from_bits(key), as_of, stats, firing }
            },
        )
    }

    proptest! {
        #[test]
        fn other_instances_read_what_is_announced(rows in vec(any_row(), 0..5)) {
            let bytes = encode(7, 9, &rows);
            prop_assert_eq!(bytes.len(), HEAD_BYTES + rows.len() * ROW_BYTES);
            prop_assert_eq!(decode(7, &bytes), None, "and not who has said it");
            let expected = Announcement { instance: 7, number: 9, rows };
            prop_assert_eq!(decode(8, &bytes), Some(expected));
        }

        #[test]
        fn arbitrary_bytes_are_no_fault(bytes in vec(any::<u8>(), 0..200)) {
            decode(7, &bytes);
        }
    }

    #[test]
    fn an_announcement_of_another_form_is_ignored() {
        let row = AnnouncedRow {
            key: AnomalyKey::from_bits(7),
            as_of: Timestamp::MIN,
            stats: AnomalyStats::default(),
            firing: None,
        };
        let bytes = encode(7, 9, &[row]);
        assert_eq!(decode(8, &bytes).unwrap().rows.len(), 1);
        assert_eq!(decode(8, &bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(8, &[&[2], &bytes[1..]].concat()), None);
    }
}
