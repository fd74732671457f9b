//! Diagnostics drawn in the source, as rustc draws them.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::{Diagnostic, Diagnostics, Severity, SourceId, Sources};

/// The text of all `diagnostics`, one after the other; with colours if `colour`.
pub fn render(diagnostics: &Diagnostics, sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for (i, diagnostic) in diagnostics.0.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        out.push_str(&one(diagnostic, sources, &renderer));
        out.push('\n');
    }
    out
}

fn one(diagnostic: &Diagnostic, sources: &Sources, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut files: Vec<SourceId> = vec![];
    for (span, _) in &diagnostic.labels {
        if !files.contains(&span.source) {
            files.push(span.source);
        }
    }
    let title = level.primary_title(diagnostic.message.as_str());
    let mut group = annotate_snippets::Group::with_title(title);
    for file in files {
        let text = sources.text(file);
        let mut snippet = Snippet::source(text).path(sources.path(file)).line_start(1).fold(true);
        for (i, (span, label)) in diagnostic.labels.iter().enumerate().filter(|(_, l)| l.0.source == file) {
            let kind = if i == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            // Spans are clamped so that a message about a strange place is still a message.
            let start = (span.start as usize).min(text.len());
            let end = (span.end as usize).clamp(start, text.len());
            let annotation = kind.span(start..end);
            snippet = snippet.annotation(if label.is_empty() { annotation } else { annotation.label(label.as_str()) });
        }
        group = group.element(snippet);
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    for help in &diagnostic.helps {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;

    #[test]
    fn an_error_points_and_says_the_way_out() {
        let mut sources = Sources::default();
        let file = sources.add("toy.mm", "let a = x + y;\nlet b = a * w;\n");
        let error = Diagnostic::error("dims do not match")
            .at(Span::new(file, 23, 28), "DIM is 512 on the left and 256 on the right")
            .at(Span::new(file, 8, 13), "the left side comes from here")
            .help("make both sides 512");
        let text = render(&error.into(), &sources, false);
        let expected = "\
error: dims do not match
 --> toy.mm:2:9
  |
1 | let a = x + y;
  |         ----- the left side comes from here
2 | let b = a * w;
  |         ^^^^^ DIM is 512 on the left and 256 on the right
  |
  = help: make both sides 512
";
        assert_eq!(text, expected);
    }
}
