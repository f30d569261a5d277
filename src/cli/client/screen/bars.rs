//! Numbers as bars: on one line, and as a chart of several.

/// The eighths of a line's height, from zero.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns a bar for each number on one line, the largest of them full. A number that is not zero
/// is always visible.
pub(in crate::cli::client) fn spark(numbers: &[u64]) -> String {
    let max = numbers.iter().copied().max().unwrap_or_default();
    numbers.iter().map(|number| EIGHTHS[eighths(*number, max, 8)]).collect()
}

/// Returns the lines of a chart, the highest first, with a bar of `thickness` columns for each
/// number. The largest fills all lines.
pub(in crate::cli::client) fn chart(
    numbers: &[u64],
    lines: usize,
    thickness: usize,
) -> Vec<String> {
    let max = numbers.iter().copied().max().unwrap_or_default();
    let heights: Vec<usize> =
        numbers.iter().map(|number| eighths(*number, max, 8 * lines)).collect();
    let line = |below: usize| {
        let bar = |height: &usize| {
            let eighths = height.saturating_sub(8 * below).min(8);
            EIGHTHS[eighths].to_string().repeat(thickness)
        };
        heights.iter().map(bar).collect::<String>()
    };
    (0..lines).rev().map(line).collect()
}

/// Returns a number as a share of `max`, rounded up, in `parts`.
fn eighths(number: u64, max: u64, parts: usize) -> usize {
    if max == 0 {
        return 0;
    }
    let parts = u128::try_from(parts).unwrap_or_default();
    let share = (u128::from(number) * parts).div_ceil(u128::from(max));
    usize::try_from(share).unwrap_or_default()
}

/// Combines each `width` neighbouring values into one.
pub(in crate::cli::client) fn merged<T, M>(
    values: &[T],
    width: usize,
    merge: impl Fn(&[T]) -> M,
) -> Vec<M> {
    values.chunks(width.max(1)).map(merge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_is_a_full_bar_and_the_smallest_is_seen() {
        assert_eq!(spark(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(spark(&[0, 1, 1_000_000]), " ▁█");
        assert_eq!(spark(&[u64::MAX, 1]), "█▁");
        assert_eq!(spark(&[0, 0]), "  ");
        assert_eq!(spark(&[]), "");
    }

    #[test]
    fn a_chart_has_its_numbers_from_the_ground_up() {
        assert_eq!(chart(&[0, 1, 2, 3, 4], 2, 1), ["   ▄█", " ▄███"]);
        assert_eq!(chart(&[1, 2], 1, 3), ["▄▄▄███"]);
        assert_eq!(chart(&[0], 2, 1), [" ", " "]);
    }

    #[test]
    fn neighbours_become_one_bar() {
        assert_eq!(merged(&[1, 2, 3, 4, 5], 2, |part| part.iter().sum::<u64>()), [3, 7, 5]);
    }
}
