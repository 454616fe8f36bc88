//! Sections, tables and numbers in Markdown.

/// A section with a title.
pub(crate) fn section(title: &str, body: &str) -> String {
    format!("### {title}\n\n{body}\n")
}

/// A section that is folded until a reader opens it.
pub(crate) fn folded(title: &str, body: &str) -> String {
    format!("<details><summary>{title}</summary>\n\n{body}\n</details>\n\n")
}

/// A table.
pub(crate) fn table(
    head: impl IntoIterator<Item: Into<String>>,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.into_iter().map(Into::into).collect();
    let rule = vec!["---".to_string(); head.len()];
    let rows = rows.into_iter().map(|row| line(&row));
    [line(&head), line(&rule)].into_iter().chain(rows).collect()
}

/// Nanoseconds, with the significant digits only.
pub(crate) fn ns(time: f64) -> String {
    match time {
        ..100.0 => format!("{time:.1}"),
        ..10_000.0 => format!("{time:.0}"),
        _ => format!("{:.0} k", time / 1e3),
    }
}
