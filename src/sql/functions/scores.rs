//! The clinic's scores in SQL.
//!
//! `news2`, `mews_subbe`, `qsofa` and `sirs` answer structs, `plausible` a BOOLEAN. The numbers and their sources are in room
//! `clinical`. Always: what is NULL, or a level of consciousness that is no chart letter, is missing and never normal.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

use super::cells::{Answer, Cell, Kind, RowFunction};
use crate::clinical::{
    Acvpu, MewsInput, News2Input, Plausibility, QsofaInput, SirsInput, Tally, Vital, mews_subbe, news2, plausible, qsofa, sirs,
};

const NEWS2: Answer = Answer::Struct(&[
    ("total", Kind::Points),
    ("resp_rate", Kind::Points),
    ("spo2", Kind::Points),
    ("oxygen", Kind::Points),
    ("sbp", Kind::Points),
    ("heart_rate", Kind::Points),
    ("consciousness", Kind::Points),
    ("temperature", Kind::Points),
    ("single3", Kind::Flag),
    ("risk", Kind::Text),
    ("complete", Kind::Flag),
    ("missing", Kind::Texts),
    ("score_min", Kind::Points),
    ("score_max", Kind::Points),
]);

const MEWS: Answer =
    Answer::Struct(&[("total", Kind::Points), ("missing", Kind::Texts), ("score_min", Kind::Points), ("score_max", Kind::Points)]);

const TALLY: Answer =
    Answer::Struct(&[("total", Kind::Points), ("met", Kind::Points), ("unknown", Kind::Points), ("positive", Kind::Flag)]);

/// The functions.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    use Kind::{Flag, Number, Text};
    vec![
        // (rr, spo2, on_oxygen, spo2_scale, sbp, hr, acvpu, temp_c)
        RowFunction::udf("news2", &[Number, Number, Flag, Number, Number, Number, Text, Number], 8, NEWS2, of_news2),
        // (sbp, hr, rr, temp_c, avpu)
        RowFunction::udf("mews_subbe", &[Number, Number, Number, Number, Text], 5, MEWS, of_mews),
        // (rr, sbp, acvpu)
        RowFunction::udf("qsofa", &[Number, Number, Text], 3, TALLY, of_qsofa),
        // (temp_c, hr, rr [, paco2 [, wbc]])
        RowFunction::udf("sirs", &[Number, Number, Number, Number, Number], 3, TALLY, of_sirs),
        RowFunction::udf("plausible", &[Text, Number], 2, Answer::One(Flag), of_plausible),
    ]
}

type Cells = Result<Vec<Cell>, &'static str>;

fn number(cells: &[Cell], at: usize) -> Option<f64> {
    cells.get(at).and_then(Cell::number)
}

fn consciousness(cells: &[Cell], at: usize) -> Option<Acvpu> {
    cells.get(at).and_then(Cell::text).and_then(Acvpu::parse)
}

fn texts(names: Vec<&'static str>) -> Cell {
    Cell::Texts(names.into_iter().map(str::to_owned).collect())
}

fn of_news2(cells: &[Cell]) -> Cells {
    // A number that is not whole is no scale either; -1 says so.
    let scale = number(cells, 3).map(|scale| if scale.fract() == 0.0 { scale as i32 } else { -1 });
    let score = news2(&News2Input {
        resp_rate: number(cells, 0),
        spo2: number(cells, 1),
        on_oxygen: cells.get(2).and_then(Cell::flag),
        spo2_scale: scale,
        sbp: number(cells, 4),
        heart_rate: number(cells, 5),
        consciousness: consciousness(cells, 6),
        temp_c: number(cells, 7),
    });
    let points = score.points;
    Ok(vec![
        Cell::points(score.total),
        Cell::points(points.resp_rate),
        Cell::points(points.spo2),
        Cell::points(points.oxygen),
        Cell::points(points.sbp),
        Cell::points(points.heart_rate),
        Cell::points(points.consciousness),
        Cell::points(points.temperature),
        Cell::Flag(score.single3),
        score.risk.map_or(Cell::Null, |risk| Cell::Text(risk.as_str().to_owned())),
        Cell::Flag(score.complete),
        texts(score.missing),
        Cell::Points(score.score_min.into()),
        Cell::Points(score.score_max.into()),
    ])
}

fn of_mews(cells: &[Cell]) -> Cells {
    let score = mews_subbe(&MewsInput {
        sbp: number(cells, 0),
        heart_rate: number(cells, 1),
        resp_rate: number(cells, 2),
        temp_c: number(cells, 3),
        consciousness: consciousness(cells, 4),
    });
    Ok(vec![Cell::points(score.total), texts(score.missing), Cell::Points(score.score_min.into()), Cell::Points(score.score_max.into())])
}

fn tally(tally: Tally) -> Vec<Cell> {
    vec![Cell::points(tally.total()), Cell::Points(tally.met.into()), Cell::Points(tally.unknown.into()), Cell::maybe(tally.positive())]
}

fn of_qsofa(cells: &[Cell]) -> Cells {
    Ok(tally(qsofa(&QsofaInput { resp_rate: number(cells, 0), sbp: number(cells, 1), consciousness: consciousness(cells, 2) })))
}

fn of_sirs(cells: &[Cell]) -> Cells {
    Ok(tally(sirs(&SirsInput {
        temp_c: number(cells, 0),
        heart_rate: number(cells, 1),
        resp_rate: number(cells, 2),
        paco2: number(cells, 3),
        wbc: number(cells, 4),
    })))
}

/// Whether a body can have the value; what is rare counts as possible.
fn of_plausible(cells: &[Cell]) -> Cells {
    let Some(name) = cells.first().and_then(Cell::text) else { return Ok(vec![Cell::Null]) };
    let vital = Vital::parse(name).ok_or("plausible knows heart_rate, pulse_rate, resp_rate, spo2, sbp, dbp, map, temp_c and etco2")?;
    Ok(vec![number(cells, 1).map_or(Cell::Null, |value| Cell::Flag(plausible(vital, value) != Plausibility::Impossible))])
}
