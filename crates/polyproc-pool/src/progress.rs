//! A bar that shows how far a batch is, if the feature `progress` is on and somebody has asked for one.

#[cfg(feature = "progress")]
use indicatif::ProgressBar;

#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    #[cfg(feature = "progress")]
    pub(crate) bar: Option<ProgressBar>,
}

impl Progress {
    /// A batch begins, of so many tasks, as far as is known.
    #[cfg_attr(not(feature = "progress"), expect(clippy::unused_self, reason = "there is no bar"))]
    pub(crate) fn begin(&self, (least, most): (usize, Option<usize>)) {
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.bar
            && most == Some(least)
        {
            bar.set_length(least as u64);
        }
        #[cfg(not(feature = "progress"))]
        let _ = (least, most);
    }

    /// So many more are done.
    #[cfg_attr(not(feature = "progress"), expect(clippy::unused_self, reason = "there is no bar"))]
    pub(crate) fn advance(&self, count: usize) {
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        }
        #[cfg(not(feature = "progress"))]
        let _ = count;
    }

    /// All are done, or nobody wants the rest.
    #[cfg_attr(not(feature = "progress"), expect(clippy::unused_self, reason = "there is no bar"))]
    pub(crate) fn end(&self) {
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
