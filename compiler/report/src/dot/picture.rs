//! A picture for Graphviz: clusters in clusters, nodes, edges, and how each kind of them looks.

use std::fmt::{self, Write};

use crate::outline::Phase;

/// Index into [`Picture::nodes`].
pub type NodeId = usize;

#[derive(Default)]
pub struct Picture {
    /// Lines above the picture, the first of them large.
    pub title: Vec<String>,
    pub clusters: Vec<Cluster>,
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    /// Mesh axes in the order of their colours.
    pub axes: Vec<String>,
}

pub struct Cluster {
    pub parent: Option<usize>,
    pub title: String,
    pub detail: String,
    pub look: Look,
}

pub struct Node {
    pub cluster: Option<usize>,
    pub shape: Shape,
    /// The first line is bold.
    pub lines: Vec<String>,
}

#[derive(Clone, PartialEq)]
pub enum Shape {
    Compute(Phase),
    /// Over these axes.
    Collective(String),
    /// What comes in or goes out.
    Feed,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Look {
    Ranks,
    Phase(Phase),
}

pub struct Edge {
    pub from: NodeId,
    pub to: NodeId,
    pub label: String,
    /// The axes that it crosses; empty inside a rank.
    pub axes: String,
    /// Held for a later phase instead of used at once.
    pub kept: bool,
    /// Ends at the borders of these clusters.
    pub tail: Option<usize>,
    pub head: Option<usize>,
}

/// Background and border.
const fn phase_colours(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Forward => ("#dbeafe", "#1d4ed8"),
        Phase::Backward => ("#ffedd5", "#c2410c"),
        Phase::Update => ("#dcfce7", "#15803d"),
    }
}

/// One for each group of axes, in the order of first use.
const AXES: [&str; 8] = ["#be123c", "#6d28d9", "#0f766e", "#a16207", "#0369a1", "#a21caf", "#4d7c0f", "#334155"];

impl Picture {
    pub fn node(&mut self, cluster: Option<usize>, shape: Shape, lines: Vec<String>) -> NodeId {
        if let Shape::Collective(axes) = &shape
            && !self.axes.contains(axes)
        {
            self.axes.push(axes.clone());
        }
        self.nodes.push(Node { cluster, shape, lines });
        self.nodes.len() - 1
    }

    pub fn cluster(&mut self, cluster: Cluster) -> usize {
        self.clusters.push(cluster);
        self.clusters.len() - 1
    }

    fn colour(&self, axes: &str) -> &'static str {
        AXES[self.axes.iter().position(|a| a == axes).unwrap_or(0) % AXES.len()]
    }

    fn clusters_in(&self, f: &mut fmt::Formatter<'_>, parent: Option<usize>, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        for (id, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.cluster == parent) {
            writeln!(f, "{pad}n{id} [{}]", self.look(node))?;
        }
        for (id, cluster) in self.clusters.iter().enumerate().filter(|(_, c)| c.parent == parent) {
            let (fill, pen, size) = match cluster.look {
                Look::Ranks => ("#f8fafc", "#64748b", 20),
                Look::Phase(phase) => ("#ffffff", phase_colours(phase).1, 16),
            };
            writeln!(f, "{pad}subgraph cluster_{id} {{")?;
            let detail = match cluster.detail.as_str() {
                "" => String::new(),
                text => format!("<BR/><FONT POINT-SIZE=\"12\" COLOR=\"#475569\">{}</FONT>", escaped(text)),
            };
            writeln!(
                f,
                "{pad}  label=<<B>{}</B>{detail}> fontsize={size} style=\"rounded,filled\" fillcolor=\"{fill}\" color=\"{pen}\" penwidth=1.5 margin=14",
                escaped(&cluster.title)
            )?;
            self.clusters_in(f, Some(id), depth + 1)?;
            writeln!(f, "{pad}}}")?;
        }
        Ok(())
    }

    fn look(&self, node: &Node) -> String {
        let mut label = String::new();
        let small = if matches!(node.shape, Shape::Collective(_)) { "#f1f5f9" } else { "#475569" };
        for (i, line) in node.lines.iter().enumerate() {
            let _ = match i {
                0 => write!(label, "<B>{}</B>", escaped(line)),
                _ => write!(label, "<BR/><FONT POINT-SIZE=\"10\" COLOR=\"{small}\">{}</FONT>", escaped(line)),
            };
        }
        let shape = match &node.shape {
            Shape::Compute(phase) => {
                let (fill, pen) = phase_colours(*phase);
                format!("shape=box style=\"rounded,filled\" fillcolor=\"{fill}\" color=\"{pen}\"")
            }
            Shape::Collective(axes) => {
                format!(
                    "shape=hexagon margin=\"0.02,0.02\" style=filled fillcolor=\"{0}\" color=\"{0}\" fontcolor=white",
                    self.colour(axes)
                )
            }
            Shape::Feed => "shape=ellipse style=filled fillcolor=\"#f1f5f9\" color=\"#94a3b8\"".to_owned(),
        };
        format!("label=<{label}> {shape}")
    }
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "digraph plan {{")?;
        let mut title = String::new();
        for (i, line) in self.title.iter().enumerate() {
            let size = if i == 0 { 22 } else { 14 };
            let _ = write!(
                title,
                "<FONT POINT-SIZE=\"{size}\">{}</FONT><BR/><FONT POINT-SIZE=\"5\"> </FONT><BR/>",
                escaped(line)
            );
        }
        for axes in &self.axes {
            let text = escaped(axes);
            let _ = write!(
                title,
                "<FONT POINT-SIZE=\"14\" COLOR=\"{}\"><B>&#11042; over {text}</B></FONT>   ",
                self.colour(axes)
            );
        }
        writeln!(
            f,
            "  graph [label=<{title}> labelloc=t compound=true newrank=true rankdir=TB nodesep=0.3 ranksep=0.45 fontname=\"Helvetica\" bgcolor=white pad=0.3]"
        )?;
        writeln!(f, "  node [fontname=\"Helvetica\" fontsize=13 margin=\"0.12,0.06\"]")?;
        writeln!(
            f,
            "  edge [fontname=\"Helvetica\" fontsize=10 color=\"#475569\" fontcolor=\"#475569\" arrowsize=0.7]"
        )?;
        self.clusters_in(f, None, 1)?;
        for edge in &self.edges {
            let mut looks = vec![];
            if !edge.label.is_empty() {
                looks.push(format!("label=<{}>", escaped(&edge.label)));
            }
            if !edge.axes.is_empty() {
                looks.push(format!("color=\"{0}\" fontcolor=\"{0}\" penwidth=2", self.colour(&edge.axes)));
            }
            if edge.kept {
                looks.push("style=dashed".to_owned());
            }
            looks.extend(edge.tail.map(|c| format!("ltail=cluster_{c}")));
            looks.extend(edge.head.map(|c| format!("lhead=cluster_{c}")));
            writeln!(f, "  n{} -> n{} [{}]", edge.from, edge.to, looks.join(" "))?;
        }
        writeln!(f, "}}")
    }
}

/// Text inside an HTML-like label.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
