// Every pipeline schedule: its name in flags and pipelines, its word in `.mm` files, and its file in this folder. Where
// nothing is asked for, the first that takes the number of stages is used.
// `frontends/mm` and `frontends/eval` read the words here too.
schedules! {
    "1f1b", OneFOneB, one_f_one_b;
    "gpipe", GPipe, gpipe;
    "interleaved", Interleaved, interleaved;
    "zb-h1", ZbH1, zb_h1;
    "zb-v", ZbV, zb_v;
}
