//! Parses the replies of the scripts, and the JSON of the repair history.

use fred::bytes_utils::Str;
use fred::types::Value;
use serde::{Deserialize, Serialize};

use super::{
    known_timelines::OldestEvent,
    time::{from_exact_unix_seconds, from_iso8601, from_unix_seconds, to_iso8601},
};
use crate::{
    domain::{
        AnomalyStats, ExtraCount, ExtraWindow, FIX_VALIDITY_SECONDS, Firing, RecentAttempt,
        RepairAttempt, RuleRef, Timestamp, WindowCounts,
    },
    store::{Cause, StoreError},
};

/// The index of the newest event before a recorded one, among the words after the tag.
const PREVIOUS_NEWEST: usize = 7;

/// One result of a script: a text that begins with a word, or a number in its place, followed by
/// other values, which are read from front to back. `''` stands for a missing value.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    head: Head,
    values: std::vec::IntoIter<Value>,
}

/// The beginning of a result.
#[derive(Clone, Debug)]
enum Head {
    Text(Str),
    /// Stands for "counted", with the same number of events in each window, and nothing else.
    Counted(u64),
}

impl Reply {
    /// Parses the reply of a script that returns one result for each element.
    pub(super) fn elements(value: Value) -> Result<Vec<Self>, StoreError> {
        list(value)?.into_iter().map(Self::one).collect()
    }

    /// Parses a single result: a list, or only its first text.
    pub(super) fn one(value: Value) -> Result<Self, StoreError> {
        let (head, values) = match value {
            Value::Array(values) => {
                let mut values = values.into_iter();
                (values.next(), values)
            }
            text => (Some(text), Vec::new().into_iter()),
        };
        let head = match head {
            Some(Value::String(text)) => Head::Text(text),
            // It contains a foreign key's text that is not UTF-8.
            Some(Value::Bytes(text)) => {
                Head::Text(String::from_utf8_lossy(&text).into_owned().into())
            }
            Some(Value::Integer(count)) => {
                Head::Counted(count.try_into().map_err(|_| unexpected("a negative count"))?)
            }
            _ => return Err(unexpected("no text at the beginning of a result")),
        };
        Ok(Self { head, values })
    }

    fn head_text(&self) -> &str {
        match &self.head {
            Head::Text(text) => text,
            Head::Counted(_) => "counted",
        }
    }

    /// Returns the first word of a result.
    ///
    /// # Errors
    /// Returns the script's own error if the word is `error`: only the data of this anomaly are at
    /// fault.
    pub(super) fn tag(&self) -> Result<&str, StoreError> {
        match self.head_text().split_once(' ') {
            Some(("error", message)) => Err(StoreError::permanent(message)),
            Some((tag, _)) => Ok(tag),
            None => Ok(self.head_text()),
        }
    }

    /// Returns the time of the later change of a permanent fix that has prevented this one.
    pub(super) fn later_change(&self) -> Result<Option<Timestamp>, StoreError> {
        match self.tag()? {
            "later" => score(self.stats_words().next()),
            _ => Ok(None),
        }
    }

    /// Continues reading if the tag is `known_tag`. Returns `None` if it is `unknown`.
    pub(super) fn if_known<R>(
        &mut self,
        known_tag: &str,
        read: impl FnOnce(&mut Self) -> Result<R, StoreError>,
    ) -> Result<Option<R>, StoreError> {
        match self.tag()? {
            "unknown" => Ok(None),
            tag if tag == known_tag => read(self).map(Some),
            other => Err(unexpected(other)),
        }
    }

    /// Parses the stats after the tag, in the form of `encode_stats` in `library.lua`. `oldest` and
    /// `newest` are the times of these events, used if the script leaves them out.
    pub(super) fn stats(
        &self,
        now: Timestamp,
        rule: Option<&RuleRef>,
        oldest: Option<Timestamp>,
        newest: Option<Timestamp>,
    ) -> Result<AnomalyStats, StoreError> {
        let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
        let (counts, extra) = match &self.head {
            Head::Text(_) => window_counts(self.stats_words().next(), windows)?,
            Head::Counted(all) => {
                (WindowCounts { hour: *all, day: *all, week: *all, month: *all }, Vec::new())
            }
        };
        let mut words = self.stats_words().skip(1);
        let mut next = || words.next().filter(|word| *word != "-");
        let first_seen = score(next())?.or(oldest);
        let last_seen = score(next())?.or(newest);
        let is_approximate = next() == Some("approximate");
        let repair_attempts = next().map_or(0, count_or_zero);
        let is_marked = next() == Some("marked");
        let remaining_ms = next().and_then(|text| text.parse::<i64>().ok());
        let _previous_last_seen = next();
        let marked_at = next().and_then(from_iso8601);
        let fixed_at = is_marked
            .then(|| marked_at.unwrap_or_else(|| mark_time_from_remaining(now, remaining_ms)));
        let mut stats = AnomalyStats {
            counts,
            extra: Vec::new(),
            is_approximate,
            first_seen,
            last_seen,
            repair_attempts,
            fixed_at,
        };
        stats.set_extra(now, windows, |index, _| extra.get(index).copied().flatten());
        Ok(stats)
    }

    /// Parses the oldest event of the timeline, if the script returns its id. `None` also if its
    /// time is finer than a microsecond, which only a foreign writer's time is.
    pub(super) fn oldest_event(&self) -> Option<OldestEvent> {
        let (_, id) = self.head_text().rsplit_once('\n')?;
        let time = self.stats_words().nth(1)?;
        let at = from_exact_unix_seconds(time.parse().ok()?)?;
        Some(OldestEvent { id: id.into(), at })
    }

    /// Parses the time of the newest event before the recorded one, if a mark holds.
    pub(super) fn previous_last_seen(&self) -> Result<Option<Timestamp>, StoreError> {
        score(self.stats_words().nth(PREVIOUS_NEWEST).filter(|word| *word != "-"))
    }

    /// Reads the times of the newest events, if there are any: at most as many as are `wanted`.
    pub(super) fn newest_times(&mut self, wanted: usize) -> Result<Vec<Timestamp>, StoreError> {
        let Some(times) = self.values.next() else { return Ok(Vec::new()) };
        let times = list(times)?;
        let first = times.len().saturating_sub(wanted);
        let times = times.into_iter().skip(first).filter_map(Value::into_string);
        let times = times.map(|time| score(Some(&time)));
        Ok(times.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Parses the numbers of events since each of `expected` times, and returns the numbers in
    /// between.
    pub(super) fn series(&self, expected: usize) -> Result<Vec<u64>, StoreError> {
        let counts = self.head_text().split(' ').skip(1).map(count);
        let mut counts = counts.collect::<Result<Vec<u64>, _>>()?;
        if counts.len() != expected {
            return Err(unexpected("a wrong number of counts"));
        }
        for index in 1..counts.len() {
            counts[index - 1] = counts[index - 1].saturating_sub(counts[index]);
        }
        Ok(counts)
    }

    /// Returns the words after the tag. The last value, a mark's time, may be two words.
    fn stats_words(&self) -> impl Iterator<Item = &str> {
        let text = self.head_text();
        text.split_once('\n').map_or(text, |(stats, _)| stats).splitn(10, ' ').skip(1)
    }

    pub(super) fn text(&mut self) -> Result<Option<String>, StoreError> {
        let text = self.next()?.into_string().ok_or_else(|| unexpected("no text"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Reads the number of repair attempts.
    pub(super) fn repair_count(&mut self) -> Result<u64, StoreError> {
        Ok(self.text()?.map_or(0, |text| count_or_zero(&text)))
    }

    pub(super) fn iso8601(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.text()?.and_then(|text| from_iso8601(&text)))
    }

    /// Reads the firing alerts.
    pub(super) fn firing(&mut self) -> Result<Option<Firing>, StoreError> {
        let Some(text) = self.text()? else { return Ok(None) };
        let (episodes, since) = text
            .split_once(' ')
            .and_then(|(episodes, since)| Some((episodes.parse().ok()?, since.parse().ok()?)))
            .ok_or_else(|| unexpected("no counts of alerts that fire"))?;
        Ok(Some(Firing { episodes, since: Timestamp::from_micros(since) }))
    }

    /// Reads the newest repair attempts. An entry that can't be read is skipped.
    pub(super) fn repair_attempts(&mut self) -> Result<Vec<RecentAttempt>, StoreError> {
        let entries = self.texts()?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| serde_json::from_str::<HistoryEntry>(&entry).ok())
            .map(|entry| RecentAttempt {
                at: entry.timestamp.as_deref().and_then(from_iso8601),
                action: entry.action,
                success: entry.success,
            })
            .collect())
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(list(self.next()?)?.into_iter().filter_map(Value::into_string).collect())
    }

    fn next(&mut self) -> Result<Value, StoreError> {
        self.values.next().ok_or_else(|| unexpected("too few values"))
    }
}

/// Parses the number of events in each window: one number if all are equal; otherwise, from the
/// longest window on, followed by the counted windows of a rule.
fn window_counts(
    text: Option<&str>,
    windows: &[ExtraWindow],
) -> Result<(WindowCounts, Vec<Option<ExtraCount>>), StoreError> {
    let mut counts = text.unwrap_or_default().split(',');
    let month = count(counts.next().unwrap_or_default())?;
    let mut next = || counts.next().map_or(Ok(month), count);
    let of_four = WindowCounts { month, week: next()?, day: next()?, hour: next()? };
    let read = |(window, text): (&ExtraWindow, &str)| {
        if text == "-" {
            return Ok(None);
        }
        let exact = text.strip_prefix('~');
        let (seconds, is_approximate) = (window.seconds, exact.is_some());
        let count = count(exact.unwrap_or(text))?;
        Ok(Some(ExtraCount { seconds, count, is_approximate }))
    };
    let extra = windows.iter().zip(counts).map(read).collect::<Result<_, StoreError>>()?;
    Ok((of_four, extra))
}

/// Parses a number that only this service writes.
pub(super) fn count(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| unexpected("a count that is not a number"))
}

/// Parses a number that other programs write too. An unreadable number counts as missing, because a
/// recorded occurrence must be answered.
fn count_or_zero(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Parses the score of an event; `None` if it is missing.
pub(super) fn score(text: Option<&str>) -> Result<Option<Timestamp>, StoreError> {
    text.map_or(Ok(None), |text| {
        let score: f64 = text.parse().map_err(|_| unexpected("a score without a number"))?;
        Ok(Some(from_unix_seconds(score)))
    })
}

/// Returns the time of a mark whose time is missing (an older writer's metadata expire before its
/// mark does) or unreadable: it follows from the mark's remaining TTL. A mark that never expires
/// was not made by this service or its predecessor, and counts as made 90 days ago: reporting a
/// recurrence once too often is better than not at all.
fn mark_time_from_remaining(now: Timestamp, remaining_ms: Option<i64>) -> Timestamp {
    let remaining_ms = remaining_ms.filter(|ms| *ms >= 0).unwrap_or(0);
    now.minus_seconds(FIX_VALIDITY_SECONDS - remaining_ms / 1_000)
}

/// An entry of `anomaly:repair_history:<key>`. Other programs write and read it too.
#[derive(Debug, Serialize, Deserialize)]
struct HistoryEntry {
    action: String,
    success: bool,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// Returns the entry of `attempt` in the repair history.
pub(super) fn repair_attempt_json(attempt: &RepairAttempt) -> String {
    let entry = HistoryEntry {
        action: attempt.action.to_string(),
        success: attempt.success,
        timestamp: Some(to_iso8601(attempt.at)),
        event_id: Some(attempt.id.to_string()),
    };
    // Texts and a boolean always have a JSON form.
    serde_json::to_string(&entry).unwrap_or_default()
}

/// Returns the fault of a reply that none of our scripts returns, but a proxy may. It is not known
/// what the call has done.
pub(super) fn unexpected(what: &str) -> StoreError {
    let text = format!("Redis sent an unexpected reply: {what}");
    StoreError::indeterminate(Cause::Refused, text)
}

/// Returns the values of a list.
pub(super) fn list(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(&format!("{:?} instead of a list", other.kind()))),
    }
}
