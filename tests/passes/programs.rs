//! `tests/passes/<pass>/<case>.prog` after the pass of the folder's name, or after the pipeline of its first line.

use std::fs;

use passes::{Context, Form, Pipeline};

use crate::run;

/// The pipeline in a case's first line.
pub fn pipeline<'t>(text: &'t str, folder: &'t str) -> &'t str {
    text.lines().next().and_then(|line| line.strip_prefix("// passes: ")).unwrap_or(folder)
}

fn parse(text: &str) -> program::RankModule {
    match program::parse(text) {
        Ok(module) => module,
        Err(e) => {
            let line = text[..e.at.start.min(text.len())].matches('\n').count() + 1;
            panic!("line {line}: {}\n{}", e.message, text.lines().nth(line - 1).unwrap_or_default())
        }
    }
}

fn after(text: &str, pipeline: &str) -> String {
    let mut form = Form::Programs(parse(text));
    let mut cx = Context::default();
    match Pipeline::parse(pipeline).expect(pipeline).run_on(&mut form, &mut cx, |_, _| {}) {
        Ok(()) => form.to_string(),
        Err(e) => run::rendered(&e),
    }
}

#[test]
fn program_cases() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!("*/*.prog", |path| {
            let text = fs::read_to_string(path).expect("a case");
            let folder = path.parent().and_then(|p| p.file_name()).expect("a folder").to_string_lossy().into_owned();
            let drawn = after(&text, pipeline(&text, &folder));
            if drawn.starts_with("ranks of") {
                assert_eq!(parse(&drawn).to_string(), drawn, "the text reads back");
            }
            insta::assert_snapshot!(drawn);
        });
    });
}
