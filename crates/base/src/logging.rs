//! Log lines to standard error, as text or JSON, filtered by an env-filter expression.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// klog's `-v` as a filter: 0–1 info, 2–5 debug of ours, above that trace.
pub fn filter_for_verbosity(v: u8) -> &'static str {
    match v {
        0..=2 => "info",
        3..=5 => "info,tiphys=debug",
        _ => "debug,tiphys=trace",
    }
}

/// Sets the process's log up; `filter` as in `RUST_LOG`. A second call does nothing.
pub fn init(filter: &str, format: Format) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE).with_writer(std::io::stderr);
    // A line that cannot be written, to a full disk, would be complained about by eprintln, which panics for the same reason and takes
    // the thread along that had something to say.
    let builder = builder.log_internal_errors(false);
    let _ = match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
}
