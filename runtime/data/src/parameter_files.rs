//! How files hold a parameter: under its name or another, or in one of the forms that its model declares.

use std::sync::Arc;

use plan::Parameter;
use types::FileForm;

use crate::convert::converts;
use crate::fp8::{self, Scales};
use crate::tensors::{ReadError, TensorView};
use crate::{Problem, Share};

/// Where the values of a parameter lie.
#[derive(Clone, Copy)]
pub enum Held<'p> {
    /// One tensor of its shape.
    Whole(&'p str),
    Form(&'p FileForm),
}

/// A tensor of a file, with its scales if it is quantised.
pub struct Found<'f> {
    pub view: TensorView<'f>,
    pub scales: Option<Scales>,
}

/// The name and the aliases of a parameter.
pub fn names_of(parameter: &Parameter) -> impl Iterator<Item = &str> {
    [&parameter.name].into_iter().chain(&parameter.aliases).map(|n| n.as_str())
}

/// All names under which files may hold a parameter or parts of it.
pub fn tensors_of(parameter: &Parameter) -> impl Iterator<Item = String> {
    let forms = parameter.forms.iter().flat_map(|form| form.tensors(&parameter.ty));
    names_of(parameter).map(String::from).chain(forms)
}

impl<'p> Held<'p> {
    /// How the files hold the parameter; None if in none of its forms. Of forms that fit alike, the one that is saved today
    /// counts, then one tensor of the parameter's shape, then the others as they are declared.
    pub fn find<'f>(parameter: &'p Parameter, get: impl Fn(&str) -> Option<TensorView<'f>>) -> Option<Self> {
        Self::fitting(parameter, &get).next()
    }

    /// Whether the files can be understood in two ways, which differ in the order of axes.
    pub fn is_unclear<'f>(parameter: &'p Parameter, get: impl Fn(&str) -> Option<TensorView<'f>>) -> bool {
        let mut fitting = Self::fitting(parameter, &get).map(|held| held.first(parameter));
        fitting.next().is_some_and(|first| fitting.any(|other| other == first))
    }

    fn fitting<'f>(
        parameter: &'p Parameter,
        get: &impl Fn(&str) -> Option<TensorView<'f>>,
    ) -> impl Iterator<Item = Self> {
        let has = |name: &str, shape: &[usize]| get(name).is_some_and(|view| view.shape == shape);
        let fits = move |form: &&FileForm| {
            let shape = form.shape();
            form.tensors(&parameter.ty).all(|name| has(&name, &shape))
        };
        let saved = parameter.saved_form().filter(fits).map(Held::Form);
        let sizes = parameter.ty.sizes();
        let whole = names_of(parameter).filter(move |name| has(name, &sizes)).map(Held::Whole);
        let others = parameter.forms.iter().filter(|form| !form.saved).filter(fits).map(Held::Form);
        saved.into_iter().chain(whole).chain(others)
    }

    fn first(&self, parameter: &Parameter) -> String {
        match self {
            Held::Whole(name) => name.to_string(),
            Held::Form(form) => form.tensors(&parameter.ty).next().unwrap_or_default(),
        }
    }

    /// The tensors that hold it.
    pub fn tensors(&self, parameter: &Parameter) -> Vec<String> {
        match self {
            Held::Whole(name) => vec![name.to_string()],
            Held::Form(form) => form.tensors(&parameter.ty).collect(),
        }
    }

    /// What is wrong with the types of its tensors.
    pub fn problems<'f>(
        &self,
        parameter: &Parameter,
        get: impl Fn(&str) -> Option<TensorView<'f>>,
    ) -> impl Iterator<Item = Problem> {
        let want = &parameter.ty;
        self.tensors(parameter).into_iter().filter_map(move |name| {
            let view = get(&name)?;
            if fp8::is_fp8(view.dtype) {
                let scale = get(&fp8::scale_name(&name));
                return scale.is_none().then(|| {
                    let what = format!("is {}, and there is no `{}`", view.text(), fp8::scale_name(&name));
                    Problem::Other { name, what }
                });
            }
            let wrong = !converts(view.dtype, want.dtype);
            wrong.then(|| Problem::Type { name, want: want.to_string(), have: view.text() })
        })
    }

    /// Writes a share of the parameter to `out`. A tensor's values are refused with its name.
    pub fn read<'f>(
        &self,
        share: &Share,
        out: &mut [u8],
        get: impl Fn(&str) -> Option<Result<Found<'f>, ReadError>>,
    ) -> Result<(), (String, ReadError)> {
        let get = |name: &str| get(name).unwrap_or(Err(ReadError::Missing)).map_err(|e| (name.to_string(), e));
        match self {
            Held::Whole(name) => {
                let Found { view, scales } = get(name)?;
                share.clear_padding(out);
                let read = view.fill(share, scales.as_ref(), out);
                let read = read.and_then(|()| match scales {
                    Some(_) => share.check_finite(out),
                    None => view.check_finite(share, out),
                });
                read.map_err(|e| (name.to_string(), e))
            }
            Held::Form(form) => {
                share.clear_padding(out);
                let shared = Arc::new((*form).clone());
                for index in 0..form.count(share.ty()) {
                    let Some(part) = share.in_form(&shared, index) else { continue };
                    let name = form.tensor(index);
                    let Found { view, scales } = get(&name)?;
                    view.fill(&part, scales.as_ref(), out).map_err(|e| (name, e))?;
                }
                share.check_finite(out).map_err(|e| (form.tensor(0), e))
            }
        }
    }
}

/// What is wrong where the files hold a parameter in none of its forms, though there are tensors of one; and those tensors.
pub fn unfit<'f>(
    parameter: &Parameter,
    get: impl Fn(&str) -> Option<TensorView<'f>>,
) -> Option<(Vec<Problem>, Vec<String>)> {
    let of = |form: &FileForm| form.ty(&parameter.ty, parameter.ty.dtype).to_string();
    // The types that a tensor may have.
    let want = |name: &str| {
        let whole = names_of(parameter).any(|n| n == name).then(|| parameter.ty.to_string());
        let forms = parameter.forms.iter().filter(|form| form.tensors(&parameter.ty).any(|n| n == name));
        whole.into_iter().chain(forms.map(of)).collect::<Vec<_>>().join(" or ")
    };
    let misshapen =
        |name: &str, view: &TensorView<'f>| Problem::Shape { name: name.into(), want: want(name), have: view.text() };
    if let Some((name, view)) = names_of(parameter).find_map(|name| Some((name, get(name)?))) {
        return Some((vec![misshapen(name, &view)], vec![]));
    }
    // The form of which most tensors are there.
    let count = |form: &&FileForm| form.tensors(&parameter.ty).filter(|name| get(name).is_some()).count();
    let form = parameter.forms.iter().rev().max_by_key(count).filter(|form| count(form) > 0)?;
    let shape = form.shape();
    let problem = |name: &String| match get(name) {
        None => Some(Problem::Missing { name: name.clone(), ty: of(form), near: vec![] }),
        Some(view) => (view.shape != shape).then(|| misshapen(name, &view)),
    };
    let tensors: Vec<String> = form.tensors(&parameter.ty).collect();
    Some((tensors.iter().filter_map(problem).collect(), tensors))
}
