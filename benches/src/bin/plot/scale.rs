//! Where a figure lies on its axis.

/// An axis: from nought in equal steps, or in equal factors where the figures span more than a decade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    /// An axis on which all of these find room; `None` without any.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Scale> {
        let figures = figures.filter(|figure| figure.is_finite() && *figure > 0.0);
        let (least, most) = figures.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), figure| {
            (low.min(figure), high.max(figure))
        });
        if most == 0.0 {
            return None;
        }
        let is_log = most / least > 10.0;
        let (low, high) = if is_log { (least / 1.3, most * 1.3) } else { (0.0, most * 1.05) };
        Some(Scale { low, high, is_log })
    }

    /// An axis in equal steps on which all of these find room; `None` without any.
    pub(crate) fn from_nought(figures: impl Iterator<Item = f64>) -> Option<Scale> {
        let most = figures.filter(|figure| figure.is_finite()).fold(0.0, f64::max);
        (most > 0.0).then_some(Scale { low: 0.0, high: most * 1.05, is_log: false })
    }

    /// An axis in equal factors on which all of these find room; `None` without any.
    pub(crate) fn factors(figures: impl Iterator<Item = f64>) -> Option<Scale> {
        let figures = figures.filter(|figure| figure.is_finite() && *figure > 0.0);
        let (least, most) = figures.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), figure| {
            (low.min(figure), high.max(figure))
        });
        (most > 0.0).then_some(Scale { low: least / 1.3, high: most * 1.3, is_log: true })
    }

    pub(crate) fn is_log(self) -> bool {
        self.is_log
    }

    /// The place of a figure: 0 at the axis' beginning, 1 at its end, and nothing beyond.
    pub(crate) fn place(self, figure: f64) -> f64 {
        let place = if self.is_log {
            (figure / self.low).ln() / (self.high / self.low).ln()
        } else {
            figure / self.high
        };
        place.clamp(0.0, 1.0)
    }

    /// The figures to write below the axis.
    pub(crate) fn ticks(self) -> Vec<f64> {
        if self.is_log {
            let is_wide = self.high / self.low > 200.0;
            let steps: &[f64] = if is_wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
            return ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect();
        }
        let decade = 10f64.powf((self.high / 2.5).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * decade);
        let step = steps.into_iter().find(|step| self.high / step <= 7.0).unwrap_or(self.high);
        (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= self.high).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_drawn_from_nought() {
        let scale = Scale::of([1.0, 2.0, 0.5].into_iter()).unwrap();
        assert!(!scale.is_log());
        assert_eq!(scale.place(0.0), 0.0);
        assert!((scale.place(1.05) - 0.5).abs() < 1e-9);
        assert_eq!(scale.ticks(), [0.0, 0.5, 1.0, 1.5, 2.0]);
    }

    #[test]
    fn decades_are_drawn_in_factors() {
        let scale = Scale::of([1.0, 1000.0].into_iter()).unwrap();
        assert!(scale.is_log());
        assert!((scale.place(1000f64.sqrt()) - 0.5).abs() < 1e-9);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(scale.place(0.0), 0.0, "what is below the axis is at its beginning");
        assert_eq!(scale.place(1e9), 1.0);
    }

    #[test]
    fn nothing_has_no_axis() {
        assert!(Scale::of([f64::NAN, 0.0].into_iter()).is_none());
    }
}
