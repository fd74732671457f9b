//! `tests/passes/<pass>/<case>.ir` after the pass of the folder's name, or after the pipeline of its first line.

use std::fs;

use passes::Form;

use crate::programs::pipeline;
use crate::run;

#[test]
fn cases() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!("*/*.ir", |path| {
            let text = fs::read_to_string(path).expect("a case");
            let folder = path.parent().and_then(|p| p.file_name()).expect("a folder").to_string_lossy().into_owned();
            let drawn = match run::run_on(&text, pipeline(&text, &folder)) {
                Ok((form, cx)) => {
                    let printed = form.to_string();
                    let again = match &form {
                        Form::Graph(_) => run::parse(&printed).to_string(),
                        Form::Programs(_) => program::parse(&printed).expect("a text that reads back").to_string(),
                    };
                    assert_eq!(again, printed, "the text reads back");
                    let warnings =
                        if cx.warnings.0.is_empty() { String::new() } else { run::rendered(&cx.warnings) + "\n" };
                    warnings + &printed
                }
                Err(e) => run::rendered(&e),
            };
            insta::assert_snapshot!(drawn);
        });
    });
}
