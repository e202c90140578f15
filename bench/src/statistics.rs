//! Medians, and how far they can be trusted, without any belief about how the figures are spread.

/// The middle of some figures; the mean of the middle two if their number is even.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Where the median of what was sampled lies with at least 95 % confidence: between two of the figures, by the sign
/// test. Fewer than six figures cannot say; then it is all of them.
#[must_use]
pub fn interval(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    let cut = cut(sorted.len());
    (sorted[cut], sorted[sorted.len() - 1 - cut])
}

/// How many figures at each end may be left out: the largest number whose tails of the binomial distribution
/// with one half have at most 5 % together.
fn cut(count: usize) -> usize {
    let mut probability = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut tail = probability;
    let mut cut = 0;
    while 2.0 * tail <= 0.05 {
        probability *= (count - cut) as f64 / (cut + 1) as f64;
        tail += probability;
        cut += 1;
    }
    cut.saturating_sub(1)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    assert!(!values.is_empty(), "nothing was measured");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
    }

    #[test]
    fn the_interval_s_ranks_are_those_of_the_sign_test() {
        // Published tables of the confidence interval of a median: ranks 1 and 6, 4 and 12, 6 and 15, 18 and 33.
        for (count, rank) in [(6, 1), (15, 4), (20, 6), (50, 18)] {
            assert_eq!(cut(count) + 1, rank, "of {count}");
        }
        assert_eq!(interval(&[1.0, 2.0, 3.0]), (1.0, 3.0));
    }
}
