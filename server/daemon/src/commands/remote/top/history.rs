//! What a rate has been for a while, and how that is drawn in a line of text.

use std::collections::VecDeque;

/// Rates that are kept: one a second.
const KEPT: usize = 120;
/// Bars from none to the highest.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same for terminals without Unicode.
const ASCII_BARS: [char; 9] = [' ', '_', '.', ':', '-', '=', '+', '*', '#'];

/// The last rates, the newest last.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<u64>);

impl History {
    /// Takes the rate of this second.
    pub fn push(&mut self, rate: u64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(rate);
    }

    /// The newest of them as bars in exactly `columns`, the highest as high as one can be. What is
    /// more than nothing has a bar.
    pub fn bars(&self, columns: usize, is_ascii: bool) -> String {
        let bars = if is_ascii { ASCII_BARS } else { BARS };
        let newest = self.0.iter().skip(self.0.len().saturating_sub(columns));
        let highest = newest.clone().copied().max().unwrap_or(0).max(1);
        let bar = |rate: &u64| {
            let height = u128::from(*rate) * 8;
            let height = height.div_ceil(u128::from(highest)).min(8);
            bars[usize::try_from(height).unwrap_or(8)]
        };
        let text: String = newest.map(bar).collect();
        let blanks = columns.saturating_sub(self.0.len());
        " ".repeat(blanks) + &text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_rates() {
        let mut history = History::default();
        assert_eq!(history.bars(4, false), "    ");
        for rate in [0, 1, 50, 100] {
            history.push(rate);
        }
        assert_eq!(history.bars(6, false), "   ▁▄█");
        assert_eq!(history.bars(2, false), "▄█");
        assert_eq!(history.bars(4, true), " _-#");
        for _ in 0..1000 {
            history.push(u64::MAX);
        }
        assert_eq!(history.0.len(), KEPT);
        assert_eq!(history.bars(200, false).chars().count(), 200);
    }
}
