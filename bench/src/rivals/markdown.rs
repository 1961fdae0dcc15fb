//! Tables of the reports, in Markdown.

use super::statistics::Spread;

/// Adds a line.
pub fn put(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// Adds the head of a table.
pub fn write_head(out: &mut String, head: &[&str]) {
    put(out, &format!("| {} |", head.join(" | ")));
    put(out, &format!("|{}", "---|".repeat(head.len())));
}

/// Adds a row.
pub fn write_cells(out: &mut String, cells: &[String]) {
    // A bar or a new line in a message would end the cell.
    let clean = |cell: &String| cell.replace('|', "¦").replace(['\n', '\r'], " ");
    let cells: Vec<String> = cells.iter().map(clean).collect();
    put(out, &format!("| {} |", cells.join(" | ")));
}

/// A spread times `factor`, or a dash.
pub fn show(spread: Option<Spread>, factor: f64, digits: usize) -> String {
    spread.map_or("–".to_owned(), |spread| {
        spread.scaled(factor).show(digits)
    })
}
