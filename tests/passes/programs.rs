//! Programs: reading a case's pipeline.

/// The pipeline in a case's first line, or the pass of its folder's name.
pub fn pipeline<'t>(text: &'t str, folder: &'t str) -> &'t str {
    text.lines().next().and_then(|line| line.strip_prefix("// passes: ")).unwrap_or(folder)
}
