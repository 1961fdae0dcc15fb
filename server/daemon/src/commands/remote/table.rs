//! Tables that fit a terminal: columns that matter less are left out where it is narrow, and texts
//! are cut.

use super::text::{fitted, width};

/// Blanks between two columns.
const GAP: usize = 2;
/// The least width of a column whose text may be cut.
const FLEXIBLE_MIN: usize = 12;

/// How a column looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// Whether it lies at the right end of its place, as figures do.
    pub is_right: bool,
    /// Whether its texts may be cut.
    pub is_flexible: bool,
    /// Where there is too little room, the column with the highest goes first; one with 0 stays.
    pub rank: u8,
}

impl Column {
    /// A column of text that may be cut.
    pub const fn text(title: &'static str, rank: u8) -> Column {
        Column {
            title,
            is_right: false,
            is_flexible: true,
            rank,
        }
    }

    /// A column of words that are shown whole.
    pub const fn word(title: &'static str, rank: u8) -> Column {
        Column {
            title,
            is_right: false,
            is_flexible: false,
            rank,
        }
    }

    /// A column of figures.
    pub const fn figure(title: &'static str, rank: u8) -> Column {
        Column {
            title,
            is_right: true,
            is_flexible: false,
            rank,
        }
    }
}

/// Which columns are shown, and how wide each is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout(Vec<(usize, usize)>);

/// Lays columns out for these rows in at most `room`; without it as wide as they are.
pub fn layout(columns: &[Column], rows: &[Vec<String>], room: Option<usize>) -> Layout {
    let natural = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let widest = cells.map(|cell| width(cell)).max().unwrap_or(0);
        widest.max(width(columns[index].title))
    };
    let widths: Vec<usize> = (0..columns.len()).map(natural).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(room) = room else {
        return Layout(shown.iter().map(|&index| (index, widths[index])).collect());
    };
    let least = |index: usize| match columns[index].is_flexible {
        true => widths[index].min(FLEXIBLE_MIN),
        false => widths[index],
    };
    let gaps = |shown: &[usize]| GAP * shown.len().saturating_sub(1);
    while shown.iter().map(|&index| least(index)).sum::<usize>() + gaps(&shown) > room {
        let last = shown
            .iter()
            .copied()
            .filter(|&index| columns[index].rank > 0)
            .max_by_key(|&index| (columns[index].rank, index));
        let Some(last) = last else { break };
        shown.retain(|&index| index != last);
    }
    let mut taken: Vec<(usize, usize)> = shown.iter().map(|&index| (index, least(index))).collect();
    let used: usize = taken.iter().map(|(_, width)| width).sum();
    let mut free = room.saturating_sub(used + gaps(&shown));
    // In the order of the columns: the name, which comes early, is served before a path.
    for (index, taken) in &mut taken {
        let more = (widths[*index] - *taken).min(free);
        *taken += more;
        free -= more;
    }
    Layout(taken)
}

impl Layout {
    /// The line of the titles.
    pub fn head(&self, columns: &[Column]) -> String {
        let titles: Vec<String> = columns.iter().map(|one| one.title.to_owned()).collect();
        self.line(columns, &titles)
    }

    /// The line of a row. No blanks are at its end.
    pub fn line(&self, columns: &[Column], row: &[String]) -> String {
        let mut line = String::new();
        for (place, &(index, width)) in self.0.iter().enumerate() {
            if place > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = row.get(index).map_or("", String::as_str);
            line.push_str(&fitted(cell, width, columns[index].is_right));
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The numbers of the columns that are shown.
    #[cfg(test)]
    pub fn shown(&self) -> Vec<usize> {
        self.0.iter().map(|(index, _)| *index).collect()
    }
}

/// A whole table, a line each, with its titles.
pub fn table(columns: &[Column], rows: &[Vec<String>], room: Option<usize>) -> String {
    let layout = layout(columns, rows, room);
    let mut text = layout.head(columns) + "\n";
    for row in rows {
        text.push_str(&layout.line(columns, row));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::word("hash", 0),
        Column::text("name", 0),
        Column::figure("size", 2),
        Column::figure("up", 1),
    ];

    fn rows() -> Vec<Vec<String>> {
        [
            ["0123abcd", "a name that is rather long", "1.00 GiB", "5"],
            ["abcd0123", "日本語", "7 B", ""],
        ]
        .iter()
        .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
        .collect()
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        assert_eq!(
            table(&COLUMNS, &rows(), None),
            "hash      name                            size  up\n\
             0123abcd  a name that is rather long  1.00 GiB   5\n\
             abcd0123  日本語                           7 B\n"
        );
    }

    #[test]
    fn names_are_cut_before_columns_go_and_no_line_is_too_long() {
        assert_eq!(
            table(&COLUMNS, &rows(), Some(40)),
            "hash      name                  size  up\n\
             0123abcd  a name that is …  1.00 GiB   5\n\
             abcd0123  日本語                 7 B\n"
        );
        assert_eq!(layout(&COLUMNS, &rows(), Some(35)).shown(), [0, 1, 3]);
        assert_eq!(layout(&COLUMNS, &rows(), Some(25)).shown(), [0, 1]);
        assert_eq!(layout(&COLUMNS, &rows(), Some(3)).shown(), [0, 1]);
        for room in 22..80 {
            let text = table(&COLUMNS, &rows(), Some(room));
            assert!(
                text.lines().all(|line| width(line) <= room),
                "{room}:\n{text}"
            );
        }
    }

    #[test]
    fn a_table_without_rows_has_titles() {
        assert_eq!(table(&COLUMNS, &[], Some(80)), "hash  name  size  up\n");
    }
}
