//! Bar charts as SVG, laid out in pixels, so no font metrics are needed.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::Failure;

pub struct Series {
    pub name: String,
    pub color: RGBColor,
}

pub struct Chart {
    pub title: String,
    pub series: Vec<Series>,
    /// A label, and a value for each series; `None` if it was not measured.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
    /// Longer bars are cut off here and marked with an arrow.
    pub max: f64,
    /// The position of a reference line.
    pub line: Option<f64>,
    pub decimals: usize,
}

const WIDTH: i32 = 860;
const LEFT: i32 = 190;
const RIGHT: i32 = 70;
const TOP: i32 = 64;
const BAR: i32 = 12;
const GAP: i32 = 14;
const INK: RGBColor = RGBColor(40, 44, 52);

impl Chart {
    pub fn svg(&self) -> Result<String, Failure> {
        let group = BAR * i32::try_from(self.series.len())? + GAP;
        let height = TOP + group * i32::try_from(self.groups.len())? + 6;
        let mut svg = String::new();
        {
            let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let failed = |error: DrawingAreaErrorKind<_>| -> Failure { error.to_string().into() };
            // An explicit background keeps the text readable on dark pages.
            area.fill(&WHITE).map_err(failed)?;
            let text = |size: i32, side| {
                TextStyle::from(("sans-serif", size))
                    .color(&INK)
                    .pos(Pos::new(side, VPos::Center))
            };
            area.draw(&Text::new(
                self.title.clone(),
                (12, 20),
                text(17, HPos::Left),
            ))
            .map_err(failed)?;
            let mut x = 12;
            for series in &self.series {
                area.draw(&Rectangle::new(
                    [(x, 38), (x + 12, 50)],
                    series.color.filled(),
                ))
                .map_err(failed)?;
                area.draw(&Text::new(
                    series.name.clone(),
                    (x + 18, 44),
                    text(13, HPos::Left),
                ))
                .map_err(failed)?;
                x += 44 + 7 * i32::try_from(series.name.len())?;
            }
            let scale = |number: f64| {
                LEFT + (number.min(self.max) / self.max * f64::from(WIDTH - LEFT - RIGHT)) as i32
            };
            let mut y = TOP;
            for (label, numbers) in &self.groups {
                let middle = y + (group - GAP) / 2;
                area.draw(&Text::new(
                    label.clone(),
                    (LEFT - 10, middle),
                    text(13, HPos::Right),
                ))
                .map_err(failed)?;
                for (series, number) in self.series.iter().zip(numbers) {
                    if let Some(number) = number {
                        let end = scale(*number);
                        area.draw(&Rectangle::new(
                            [(LEFT, y), (end, y + BAR - 1)],
                            series.color.filled(),
                        ))
                        .map_err(failed)?;
                        let arrow = if *number > self.max { " →" } else { "" };
                        let value = format!("{number:.0$}{arrow}", self.decimals);
                        area.draw(&Text::new(
                            value,
                            (end + 4, y + BAR / 2),
                            text(11, HPos::Left),
                        ))
                        .map_err(failed)?;
                    }
                    y += BAR;
                }
                y += GAP;
            }
            if let Some(line) = self.line {
                let x = scale(line);
                area.draw(&PathElement::new(
                    [(x, TOP - 6), (x, height - 10)],
                    INK.stroke_width(1),
                ))
                .map_err(failed)?;
            }
            area.present().map_err(failed)?;
        }
        // In Markdown an empty line would end the HTML block.
        Ok(svg
            .lines()
            .filter(|line| !line.is_empty())
            .fold(String::new(), |all, line| all + line + "\n"))
    }
}
