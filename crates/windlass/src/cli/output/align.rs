//! Columns that line up: cells separated by tabs become columns separated by blanks.
//!
//! Rules
//!   R1 column   a cell that ends with a tab belongs to a column; consecutive lines with such a cell share its width
//!   R2 last     the last cell of a line belongs to no column and is not padded
//!   R3 memory   a stream of rows (a watch) keeps the widths it has shown
//! Source: elastic tabstops, as kubectl's output has them

/// How wide columns are.
#[derive(Debug, Clone, Copy)]
pub struct Spacing {
    /// A column's least width, padding included.
    pub least: usize,
    /// Blanks after a column's widest cell.
    pub padding: usize,
}

/// Tables.
pub const TABLE: Spacing = Spacing { least: 6, padding: 3 };
/// What `describe` and `rollout history` print.
pub const SHEET: Spacing = Spacing { least: 0, padding: 2 };

/// Aligns text whose cells are separated by tabs.
pub fn align(text: &str, spacing: Spacing) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = rows.iter().map(|row| vec![0; row.len() - 1]).collect();
    let columns_max = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns_max {
        let mut from = 0;
        while from < rows.len() {
            if widths[from].len() <= column {
                from += 1;
                continue;
            }
            let run = widths[from..].iter().take_while(|row| row.len() > column).count();
            let widest = rows[from..from + run].iter().map(|row| width(row[column])).max().unwrap_or(0);
            let wide = spacing.least.max(widest + spacing.padding);
            widths[from..from + run].iter_mut().for_each(|row| row[column] = wide);
            from += run;
        }
    }
    let mut aligned = String::with_capacity(text.len() * 2);
    for (row, widths) in rows.iter().zip(&widths) {
        for (column, cell) in row.iter().enumerate() {
            aligned.push_str(cell);
            if let Some(wide) = widths.get(column) {
                pad(&mut aligned, wide.saturating_sub(width(cell)));
            }
        }
        aligned.push('\n');
    }
    aligned
}

/// Rows that come in batches and keep their widths.
#[derive(Debug, Default)]
pub struct Rows {
    widths: Vec<usize>,
}

impl Rows {
    /// Makes a column wide enough for this cell before it is shown.
    pub fn reserve(&mut self, column: usize, cell: &str) {
        if self.widths.len() <= column {
            self.widths.resize(column + 1, TABLE.least);
        }
        self.widths[column] = self.widths[column].max(width(cell) + TABLE.padding);
    }

    /// Aligns these rows, together with what was shown before. `paint` may wrap a cell in colours.
    pub fn align(&mut self, rows: &[Vec<String>], paint: impl Fn(usize, usize, &str) -> String) -> String {
        for row in rows {
            for (column, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
                self.reserve(column, cell);
            }
        }
        let mut aligned = String::new();
        for (index, row) in rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                aligned.push_str(&paint(index, column, cell));
                if column + 1 < row.len() {
                    pad(&mut aligned, self.widths[column].saturating_sub(width(cell)));
                }
            }
            aligned.push('\n');
        }
        aligned
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

fn pad(line: &mut String, blanks: usize) {
    line.extend(std::iter::repeat_n(' ', blanks));
}

#[cfg(test)]
mod tests {
    use super::{Rows, SHEET, align};

    #[test]
    fn a_column_ends_where_a_line_has_no_such_cell() {
        let text = "Name:\tweb\nLabels:\tapp=web\nStatus\nA long name:\tx\n";
        assert_eq!(align(text, SHEET), "Name:    web\nLabels:  app=web\nStatus\nA long name:  x\n");
        assert_eq!(align("a\tb\tc\nlong\td\n", SHEET), "a     b  c\nlong  d\n");
    }

    #[test]
    fn later_rows_keep_the_widths_shown() {
        let mut rows = Rows::default();
        let plain = |_: usize, _: usize, cell: &str| cell.to_owned();
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            rows.align(&[row(&["NAME", "AGE"]), row(&["a-long-one", "1s"])], plain),
            "NAME         AGE\na-long-one   1s\n"
        );
        assert_eq!(rows.align(&[row(&["b", "2s"])], plain), "b            2s\n");
    }
}
