//! Medians, extremes and ratios of few values.

use serde::Serialize;

/// The median of some values, and their extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values are not above it; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of the finite ones among `values`; none if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }

    /// Of the ratios of pairs; a pair whose second value is 0 has none.
    pub fn of_ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        Self::of(pairs.into_iter().map(|(a, b)| a / b))
    }

    /// All three values times `factor`, which is above 0.
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
        }
    }

    /// The median with `digits` after the point, and the extremes in brackets where they differ.
    pub fn show(&self, digits: usize) -> String {
        let [median, min, max] =
            [self.median, self.min, self.max].map(|value| format!("{value:.digits$}"));
        if min == max {
            median
        } else {
            format!("{median} ({min}–{max})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN, f64::INFINITY]), None);
        let odd = spread(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        let even = spread(&[4.0, 1.0, 2.0, 100.0]).unwrap();
        assert_eq!((even.median, even.min, even.max), (3.0, 1.0, 100.0));
        assert_eq!(spread(&[7.0]).unwrap().median, 7.0);
    }

    #[test]
    fn ratios_are_of_pairs_and_skip_zeros() {
        let ratios = Spread::of_ratios([(1.0, 2.0), (3.0, 1.0), (5.0, 0.0)]).unwrap();
        assert_eq!((ratios.min, ratios.max, ratios.median), (0.5, 3.0, 1.75));
        assert_eq!(Spread::of_ratios([(1.0, 0.0)]), None);
        assert_eq!(ratios.scaled(2.0).max, 6.0);
    }

    #[test]
    fn extremes_show_only_where_they_differ() {
        let spread = Spread::of([1.001, 1.002]).unwrap();
        assert_eq!(spread.show(2), "1.00");
        assert_eq!(spread.show(3), "1.002 (1.001–1.002)");
    }
}
