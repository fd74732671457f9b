//! `saved_as` and `read_as`: forms in which files hold a parameter, beside one tensor of its name and shape.

use diag::Diagnostic;
use types::{Dim, FileAxis, FileForm, Name, braces};

use crate::args::Args;
use crate::stop::Eval;
use crate::value::{Param, Value};

/// `FFN.within(0, 2 * FFN)`: the dim as a part of a file's axis.
pub fn within<'a>(receiver: &Value<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "FFN.within(0, 2 * FFN)")?;
    let Value::Dim(dim) = receiver else {
        return Err(Diagnostic::error("`within` is of a dim").at(args.site.span, "").into());
    };
    let (at, of) = (args.count(0)?, args.count(1)?);
    if at.checked_add(dim.size).is_none_or(|end| end > of) {
        let what = format!("{dim} does not lie within {of} elements, beginning at {at}");
        return Err(Diagnostic::error(what).at(args.site.span, "").into());
    }
    let number = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    Ok(Value::Tuple([receiver.clone(), number(at), number(of)].into()))
}

/// `saved_as("experts.{EXPERTS}.up_proj.weight", [FFN, DIM])`, of a parameter whose dims these are.
pub fn form<'a>(param: &Param, args: &Args<'a>) -> Eval<'a, FileForm> {
    args.expect(2, &format!("{}(\"experts.{{EXPERTS}}.up_proj.weight\", [FFN, DIM])", args.name))?;
    let (name, dims) = (Name::new(&args.text(0)?), &param.leaf.tensor().dims);
    let mut axes: Vec<FileAxis> = vec![];
    for (value, span) in args.array(1)? {
        let (dim, part) = match &value {
            Value::Dim(dim) => (dim.clone(), None),
            Value::Tuple(items) => match &**items {
                [Value::Dim(dim), Value::Int(at), Value::Int(of)] => (dim.clone(), Some((*at as usize, *of as usize))),
                _ => return Err(not_an_axis(&value, span)),
            },
            _ => return Err(not_an_axis(&value, span)),
        };
        // A layer from a dim to itself has it twice, as `DIM.out` and `DIM.in`.
        let is = |of: &Dim| {
            of.name == dim.name
                || of
                    .name
                    .rsplit_once('.')
                    .is_some_and(|(plain, end)| *plain == *dim.name && ["out", "in"].contains(&end))
        };
        let free = |axis: &usize| axes.iter().all(|taken| taken.axis != *axis);
        let Some(axis) = (0..dims.len()).find(|axis| is(&dims[*axis]) && free(axis)) else {
            return Err(Diagnostic::error(format!("the parameter has no such axis {dim}"))
                .at(span, format!("it is `{}`", param.leaf.tensor()))
                .into());
        };
        let (at, size) = part.unwrap_or((0, dims[axis].size));
        axes.push(FileAxis { axis, at, size });
    }
    let missing = (0..dims.len()).filter(|axis| axes.iter().all(|taken| taken.axis != *axis));
    let missing: Vec<usize> = missing.filter(|axis| dims[*axis].size > 1 || braces(&name).is_some()).collect();
    let over = match (missing.as_slice(), braces(&name)) {
        ([], None) => None,
        ([axis], Some(_)) => Some(*axis),
        (missing, _) => {
            let names: Vec<String> = missing.iter().map(|axis| dims[*axis].to_string()).collect();
            let error = Diagnostic::error(match names.as_slice() {
                [] => "an index stands in the name, and no axis of the parameter is left out".to_string(),
                names => format!("the file's tensor lacks {}", names.join(", ")),
            });
            let what = format!("the parameter is `{}`", param.leaf.tensor());
            return Err(error
                .at(args.site.span, what)
                .help("one axis may be left out whose index stands in the name: \"experts.{EXPERTS}.weight\"")
                .into());
        }
    };
    Ok(FileForm { name, axes, over, saved: args.name == "saved_as" })
}

fn not_an_axis<'a>(value: &Value<'a>, span: diag::Span) -> crate::stop::Stop<'a> {
    Diagnostic::error(format!("expected a dim of the parameter, found {}", value.describe()))
        .at(span, "")
        .help("write `FFN`, or `FFN.within(0, 2 * FFN)` where it is a part of the file's axis")
        .into()
}
