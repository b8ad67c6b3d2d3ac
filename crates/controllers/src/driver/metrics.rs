//! What the drivers did, as numbers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Counters of one controller since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Views that were planned.
    pub passes: AtomicU64,
    /// Items that were carried out.
    pub items: AtomicU64,
    /// Passes that found an object changed by somebody else.
    pub conflicts: AtomicU64,
    /// Passes with an item that was refused or had no answer.
    pub failures: AtomicU64,
    /// Passes that panicked.
    pub panics: AtomicU64,
}

/// The counters of all controllers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    by_name: Arc<Mutex<BTreeMap<&'static str, Arc<Counters>>>>,
}

impl Metrics {
    /// The counters of this controller.
    pub fn of(&self, controller: &'static str) -> Arc<Counters> {
        let mut by_name = self.by_name.lock().expect("nothing panics while holding it");
        Arc::clone(by_name.entry(controller).or_default())
    }

    /// All counters in Prometheus' text form.
    pub fn render(&self) -> String {
        let by_name = self.by_name.lock().expect("nothing panics while holding it");
        let mut out = String::new();
        type Field = fn(&Counters) -> &AtomicU64;
        let fields: [(&str, Field); 5] = [
            ("passes", |counters| &counters.passes),
            ("items", |counters| &counters.items),
            ("conflicts", |counters| &counters.conflicts),
            ("failures", |counters| &counters.failures),
            ("panics", |counters| &counters.panics),
        ];
        for (field, read) in fields {
            let metric = format!("windlass_controller_{field}_total");
            writeln!(out, "# TYPE {metric} counter").expect("writing to a String does not fail");
            for (name, counters) in by_name.iter() {
                let value = read(counters).load(Ordering::Relaxed);
                writeln!(out, "{metric}{{controller=\"{name}\"}} {value}").expect("writing to a String does not fail");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use std::sync::atomic::Ordering;

    #[test]
    fn counters_are_shown_by_controller() {
        let metrics = Metrics::default();
        metrics.of("deployment").passes.fetch_add(3, Ordering::Relaxed);
        assert!(metrics.render().contains("windlass_controller_passes_total{controller=\"deployment\"} 3\n"));
    }
}
