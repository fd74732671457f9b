//! Random models for pipelines: blocks between an embedding and a head, which may share a parameter.

use plan_tests::tape::Tape;

/// A model in text form, for a module of one micro-batch.
pub fn text(tape: &mut Tape<'_>, blocks: usize, samples: usize, classes: &mut Vec<&'static str>) -> String {
    let mut class = |is: bool, name: &'static str| {
        classes.extend(is.then_some(name));
        is
    };
    let tied = class(tape.one_in(2), "tied");
    let shared = class(tape.one_in(2), "a scale that all blocks share");
    let recompute = class(tape.one_in(3), "recompute");
    let labelled = class(tape.one_in(2), "labels");
    let counted = class(labelled && tape.one_in(2), "a count that depends on data");
    let (b, l) = (samples, 1 + tape.below(4));
    let (d, f, v) = (tape.pick(&[4, 6, 8, 5]), tape.pick(&[8, 6, 12, 7]), tape.pick(&[6, 9, 4]));
    let x = format!("work[B:{b}, L:{l}, D:{d}]");
    let random =
        |std: f64| format!(r#"{{"init":{{"random":{{"normal":{{"mean":0.0,"std":{std}}}}}}},"trainable":true}}"#);
    let mark = if recompute { "recompute " } else { "" };
    let (scaled, scale) = if shared { ("%6", "mul(%5, %1)") } else { ("%6", "add(%5, %5)") };
    let head = if tied { "embed" } else { "head" };
    let labels = if labelled { format!(", %6: f32[B:{b}, L:{l}, V:{v}]") } else { String::new() };
    let count = if counted {
        r#"reduce_sum(%20) {"dims":["B","L","V"]}"#.to_owned()
    } else {
        format!("constant() {{\"value\":{:?},\"dtype\":\"f32\"}}", (b * l * v) as f64)
    };
    let squares = if counted { format!("\n  %20 = mul(%6, %6) : f32[B:{b}, L:{l}, V:{v}]") } else { String::new() };
    let off = if labelled { "sub(%14, %6)" } else { "add(%14, %14)" };
    let mut lines = vec![
        r#"module "pipeline""#.to_owned(),
        format!(r#"param "embed" : f32[V:{v}, D:{d}] {}"#, random(0.4)),
        format!(r#"param "blocks.{{}}.up" : {blocks} x f32[F:{f}, D:{d}] {}"#, random(0.3)),
        format!(r#"param "blocks.{{}}.down" : {blocks} x f32[D:{d}, F:{f}] {}"#, random(0.3)),
        format!(r#"param "scale" : f32[D:{d}] {}"#, random(0.5)),
    ];
    if !tied {
        lines.push(format!(r#"param "head" : f32[V:{v}, D:{d}] {}"#, random(0.4)));
    }
    lines.push(format!(
        r#"
{mark}fn @block(%0: {x}, %1: work[D:{d}], %2: f32[F:{f}, D:{d}], %3: f32[D:{d}, F:{f}]) {{
  %4 = cast(%2) {{"to":"work"}} : work[F:{f}, D:{d}]
  %5 = rms_norm(%0) {{"dim":"D","eps":1e-6}} : {x}
  {scaled} = {scale} : {x}
  %7 = matmul(%6, %4) {{"spec":"bld,fd->blf","dims":["B","L","F"]}} : work[B:{b}, L:{l}, F:{f}]
  %8 = gelu_tanh(%7) : work[B:{b}, L:{l}, F:{f}]
  %9 = cast(%3) {{"to":"work"}} : work[D:{d}, F:{f}]
  %10 = matmul(%8, %9) {{"spec":"blf,df->bld","dims":["B","L","D"]}} : {x}
  %11 = add(%0, %10) : {x}
  return %11
}}

fn @train(%0: f32[B:{b}, L:{l}, V:{v}], %1: f32[V:{v}, D:{d}], %2: {blocks} x f32[F:{f}, D:{d}], %3: {blocks} x f32[D:{d}, F:{f}], %4: f32[D:{d}], %5: f32[V:{v}, D:{d}]{labels}) {{
  %7 = cast(%4) {{"to":"work"}} : work[D:{d}]
  %8 = cast(%0) {{"to":"work"}} : work[B:{b}, L:{l}, V:{v}]
  %9 = cast(%1) {{"to":"work"}} : work[V:{v}, D:{d}]
  %10 = matmul(%8, %9) {{"spec":"blv,vd->bld","dims":["B","L","D"]}} : {x}
  %11 = call @block x{blocks} carry 1 share 1(%10, %7, %2, %3) : {x}
  %12 = cast(%5) {{"to":"work"}} : work[V:{v}, D:{d}]
  %13 = matmul(%11, %12) {{"spec":"bld,vd->blv","dims":["B","L","V"]}} : work[B:{b}, L:{l}, V:{v}]
  %14 = cast(%13) {{"to":"f32"}} : f32[B:{b}, L:{l}, V:{v}]
  %15 = {off} : f32[B:{b}, L:{l}, V:{v}]
  %16 = mul(%15, %15) : f32[B:{b}, L:{l}, V:{v}]
  %17 = reduce_sum(%16) {{"dims":["B","L","V"]}} : f32[]{squares}
  %18 = {count} : f32[]
  %19 = div(%17, %18) : f32[]
  return %19
}}

program "train" = @train {{
  in {{"feed":{{"name":"x","draw":{{"normal":{{"mean":0.0,"std":1.0}}}}}}}}
  in {{"parameter":"embed"}}
  in {{"parameter":"blocks.{{}}.up"}}
  in {{"parameter":"blocks.{{}}.down"}}
  in {{"parameter":"scale"}}
  in {{"parameter":"{head}"}}"#,
    ));
    if labelled {
        lines.push(r#"  in {"feed":{"name":"y","draw":{"normal":{"mean":0.0,"std":1.0}}}}"#.into());
    }
    lines.push("  out {\"loss\":\"loss\"}\n}\n".into());
    lines.join("\n")
}
