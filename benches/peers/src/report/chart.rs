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
const TITLE: i32 = 46;
const LEGEND_LINE: i32 = 18;
const BAR: i32 = 12;
const GAP: i32 = 14;
const INK: RGBColor = RGBColor(40, 44, 52);

impl Chart {
    pub fn svg(&self) -> Result<String, Failure> {
        let group = BAR * i32::try_from(self.series.len())? + GAP;
        let legend = self.legend()?;
        let (_, last_line) = legend.last().copied().unwrap_or_default();
        let top = TITLE + LEGEND_LINE * (last_line + 1);
        let height = top + group * i32::try_from(self.groups.len())? + 6;
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
            for (series, (x, line)) in self.series.iter().zip(legend) {
                let y = 44 + LEGEND_LINE * line;
                area.draw(&Rectangle::new(
                    [(x, y - 6), (x + 12, y + 6)],
                    series.color.filled(),
                ))
                .map_err(failed)?;
                area.draw(&Text::new(
                    series.name.clone(),
                    (x + 18, y),
                    text(13, HPos::Left),
                ))
                .map_err(failed)?;
            }
            let scale = |number: f64| {
                LEFT + (number.min(self.max) / self.max * f64::from(WIDTH - LEFT - RIGHT)) as i32
            };
            let mut y = top;
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
                    [(x, top - 6), (x, height - 10)],
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

    /// Where the name of each series stands: the distance from the left, and the line.
    fn legend(&self) -> Result<Vec<(i32, i32)>, Failure> {
        let (mut x, mut line) = (12, 0);
        let mut places = Vec::new();
        for series in &self.series {
            let width = 44 + 7 * i32::try_from(series.name.len())?;
            if x + width > WIDTH {
                (x, line) = (12, line + 1);
            }
            places.push((x, line));
            x += width;
        }
        Ok(places)
    }
}
