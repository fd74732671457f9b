//! What the verifier of programs says of each way to break an invariant.

const SOUND: &str = r#"
ranks of [pp:2 tp:2] align 64 pipeline
kernel k0 "make" args w
kernel k1 "use" args rrw in_place 0=2
program "train"
  rank 0 collectives 2
    buffer b0 parameter "w" f32[A:4] persistent
    buffer b1 optimizer "moment" f32[A:4] elsewhere of b0
    buffer b2 activation "a" f32[A:4]
    buffer b3 activation "b" f32[A:8]
    update b2 -> b0
    turn block
      k0( -> b2)
      c0 all_gather over tp(b2 -> b3) "why"
      k1(b2 b3[0..16] -> b2)
      c1 send 1 over pp(b2 -> )
  rank 1 collectives 2
    buffer b0 parameter "w" f32[A:4] elsewhere
    buffer b1 optimizer "moment" f32[A:4] persistent of b0
    buffer b2 activation "a" f32[A:4]
    turn block
      c1 receive 0 over pp( -> b2)
      copy(b2 -> b1)
"#;

/// What is found in the sound text with a part of it replaced.
fn found(part: &str, by: &str) -> Vec<String> {
    assert!(SOUND.contains(part), "{part}");
    let text = SOUND.replacen(part, by, 1);
    let module = program::parse(&text).unwrap_or_else(|e| panic!("{e}: {}", &text[e.at.clone()]));
    let again = program::parse(&module.to_string()).expect("the text reads back");
    assert_eq!(again, module);
    match program::verify(&module) {
        Ok(()) => vec![],
        Err(found) => found.into_iter().map(|violation| violation.to_string()).collect(),
    }
}

fn check(part: &str, by: &str, message: &str) {
    let found = found(part, by);
    assert!(found.iter().any(|found| found.contains(message)), "{by}: {found:#?}");
}

#[test]
fn a_sound_module_is_sound() {
    assert_eq!(found("why", "why"), Vec::<String>::new());
}

#[test]
fn ids_and_slices_are_there() {
    check("k0( -> b2)", "k7( -> b2)", "train, rank 0, #0: launches k7, which does not exist");
    check("b3[0..16]", "b3[32..48]", "#2: touches b3[32..48] of 32 bytes");
    check("k1(b2 b3[0..16] -> b2)", "emit0 <- b2", "gives emit0, which does not exist");
    check("k0( -> b2)", "@1 k0( -> b2)", "runs on lane1, which does not exist");
    check("copy(b2 -> b1)", "record e0", "names e0, which does not exist");
    check("of b0", "of b9", "moments or copies point at no parameter");
}

#[test]
fn operands_fit() {
    check("k1(b2 b3[0..16] -> b2)", "k1(b2 -> b2)", "launches `use` with 2 arguments and 0 scalars; it takes 3 and 0");
    check("copy(b2 -> b1)", "copy(b2[0..8] -> b1)", "copies 8 bytes to 16");
    check(
        "all_gather over tp(b2",
        "all_gather over tp(b2[0..8]",
        "an all_gather over 2 ranks gives 2 times what it takes",
    );
    check("over tp", "over dp", "collects over `dp`, which the mesh does not have");
    check("k1(b2 b3[0..16] -> b2)", "k1(b3[0..16] b2 -> b2)", "`use` writes over b2, which it reads");
}

#[test]
fn values_are_written_before_they_are_read_and_held_where_they_are_used() {
    check("k0( -> b2)", "k0( -> b2[0..8])", "#1: reads b2 `a`, which nothing has written");
    check("copy(b2 -> b1)", "copy(b2 -> b0)", "touches b0 `w`, which this rank does not hold");
    check("update b2 -> b0", "update b3 -> b0", "the update of b0");
    check("update b2 -> b0", "update b2 -> b0 update b2 -> b0", "the update of b0");
}

#[test]
fn what_one_rank_sends_another_receives() {
    check("c1 receive 0", "c1 receive 1", "rank 1 receives c1 from rank 1, which does not send it so");
    check("c1 send 1 over pp(b2 -> )", "c1 send 1 over pp(b2[0..8] -> )", "rank 1 receives c1 from rank 0");
    check("c1 receive 0 over pp( -> b2)", "k0( -> b2)", "rank 0 sends c1, and nobody receives it");
    check("c0 all_gather", "c1 all_gather", "has the number c1 of another collective");
}
