//! The plots.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::{Results, Verb};

/// The floor's, kvmnet's, and that of all others.
const COLOURS: [RGBColor; 3] =
    [RGBColor(120, 120, 120), RGBColor(0, 110, 60), RGBColor(190, 120, 60)];
const FONT: &str = "sans-serif";
const ROW: i32 = 18;

fn colour(program: &str) -> RGBColor {
    match program {
        "the floor" => COLOURS[0],
        name if name.starts_with("kvmnet") => COLOURS[1],
        _ => COLOURS[2],
    }
}

fn label(text: &str, at: (i32, i32), to: HPos, size: u32) -> Text<'_, (i32, i32), String> {
    let style = (FONT, size).into_font().color(&BLACK).pos(Pos::new(to, VPos::Center));
    Text::new(text.to_owned(), at, style)
}

/// A bar for each program, a group for each verb, on a logarithmic scale.
pub fn side_by_side(results: &Results, path: &Path) -> Result<(), Box<dyn Error>> {
    const LEFT: i32 = 190;
    const RIGHT: i32 = 660;
    let programs = |verb: Verb| {
        results
            .programs
            .iter()
            .filter_map(move |program| Some((program, program.verbs.get(&verb)?)))
    };
    let rows: i32 = Verb::ALL.iter().map(|verb| programs(*verb).count() as i32 + 2).sum();
    let root = SVGBackend::new(path, (760, (rows * ROW + 30) as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    // From a tenth of a millisecond to some more than the longest.
    let all = Verb::ALL.iter().flat_map(|verb| programs(*verb));
    let longest = all.map(|(_, measured)| measured.wall.upper).fold(1.0, f64::max);
    let decades = (longest * 10.0).log10();
    let x =
        |ms: f64| LEFT + ((ms.max(0.1) * 10.0).log10() / decades * f64::from(RIGHT - LEFT)) as i32;
    let mut y = ROW;
    root.draw(&label(
        "wall time from spawn to exit, ms, logarithmic: median and quartiles",
        (10, y),
        HPos::Left,
        13,
    ))?;
    for verb in Verb::ALL {
        y += ROW;
        root.draw(&label(&verb.to_string(), (10, y), HPos::Left, 14))?;
        for (program, measured) in programs(verb) {
            y += ROW;
            let wall = measured.wall;
            root.draw(&label(&program.name, (LEFT - 8, y), HPos::Right, 12))?;
            let bar = [(LEFT, y - 6), (x(wall.median), y + 6)];
            root.draw(&Rectangle::new(bar, colour(&program.name).filled()))?;
            root.draw(&PathElement::new([(x(wall.lower), y), (x(wall.upper), y)], BLACK))?;
            let number = format!("{:.2}", wall.median);
            root.draw(&label(&number, (x(wall.upper) + 6, y), HPos::Left, 12))?;
        }
        y += ROW;
    }
    root.present()?;
    Ok(())
}

/// A chart for each thing that grows, a line for each program and verb but the last down, which waits for
/// the kernel.
pub fn growth(results: &Results, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut all: Vec<&str> = results.growth.iter().map(|line| line.what.as_str()).collect();
    all.dedup();
    let rows = all.len().div_ceil(2);
    let root = SVGBackend::new(path, (900, rows as u32 * 260)).into_drawing_area();
    root.fill(&WHITE)?;
    for (what, area) in all.into_iter().zip(root.split_evenly((rows, 2))) {
        let lines: Vec<_> = results
            .growth
            .iter()
            .filter(|line| line.what == what && line.verb != Verb::Last)
            .collect();
        let points = || lines.iter().flat_map(|line| &line.points);
        let most = points().map(|(number, _)| *number).max().unwrap_or(1);
        let longest = points().map(|(_, wall)| wall.upper).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("{what}: wall, ms"), (FONT, 15))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(40)
            .build_cartesian_2d(0..most + most / 20, 0.0..longest * 1.1)?;
        chart.configure_mesh().disable_mesh().x_labels(6).y_labels(6).draw()?;
        for line in lines {
            // A shade for each verb.
            let strength = match line.verb {
                Verb::First => 1.0,
                Verb::Next => 0.7,
                _ => 0.45,
            };
            let style = colour(&line.program).mix(strength).stroke_width(2);
            let places = line.points.iter().map(|(number, wall)| (*number, wall.median));
            let name = format!("{}: {}", line.program, line.verb);
            chart
                .draw_series(LineSeries::new(places, style).point_size(3))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font((FONT, 10))
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    root.present()?;
    Ok(())
}
