//! Tables in Markdown that are readable as plain text, and the numbers in them.

/// Formats rows of cells, the headings first.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let mut table = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            table.push_str(&format!("| {cell:width$} "));
        }
        table.push_str("|\n");
        if number == 0 {
            table.extend(widths.map(|width| format!("| {} ", "-".repeat(width))));
            table.push_str("|\n");
        }
    }
    table
}

/// Formats a number with three significant digits, or whole with its thousands separated.
pub(crate) fn grouped(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 1_000.0 {
        return format!("{value:.0}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
