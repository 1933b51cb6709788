use std::sync::Arc;

use super::plugin::{ClusterEvent, Plugin, Point};
use super::pod_info::PodInfo;

/// The plugins of one scheduler name, in order, and who takes part where.
pub struct Profile {
    pub name: String,
    pub plugins: Vec<Arc<dyn Plugin>>,
    points: Vec<(Point, Vec<usize>)>,
}

const ALL: [Point; 10] = [
    Point::PreEnqueue,
    Point::PreFilter,
    Point::Filter,
    Point::PostFilter,
    Point::Score,
    Point::Reserve,
    Point::Permit,
    Point::PreBind,
    Point::Bind,
    Point::PostBind,
];

impl Profile {
    pub fn new(name: impl Into<String>, plugins: Vec<Arc<dyn Plugin>>) -> Self {
        let of = |point: Point| plugins.iter().enumerate().filter(|(_, p)| p.points().contains(&point)).map(|(at, _)| at).collect();
        let points = ALL.into_iter().map(|point| (point, of(point))).collect();
        Profile { name: name.into(), plugins, points }
    }

    /// The plugins at a point, with their places in the profile.
    pub fn at(&self, point: Point) -> impl Iterator<Item = (usize, &Arc<dyn Plugin>)> + Clone {
        let places = self.points.iter().find(|(p, _)| *p == point).map_or(&[][..], |(_, places)| places);
        places.iter().map(|at| (*at, &self.plugins[*at]))
    }

    /// One of the plugins that refused the pod thinks that the event may help; a pod that no plugin refused is helped by anything.
    pub fn may_help(&self, event: &ClusterEvent, pod: &PodInfo, refused_by: &[&'static str]) -> bool {
        let mut asked = self.plugins.iter().filter(|p| refused_by.contains(&p.name())).peekable();
        asked.peek().is_none() || asked.any(|p| p.may_help(event, pod))
    }
}
