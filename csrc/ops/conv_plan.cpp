#include "ops/conv_plan.h"

#include <algorithm>
#include <cmath>

namespace tapegrad {
namespace {

double padded(double n) { return std::ceil(n / kConvLanes) * kConvLanes; }

// The product of extents as a double, which cannot overflow: padding, stride and dilation may be anything.
template <class... N>
double product(N... extents) {
  return (static_cast<double>(extents) * ...);
}

double map_elements(const ConvMap& map) {
  return product(map.C, map.planes_h, map.planes_w, map.band + map.halo, map.pitch) + kConvLanes;
}

// The most rows whose map, and whose results before they are put in place or transposed, fit the scratch. Bands of
// equal height.
void choose_band(ConvPlan& plan, int64_t element) {
  const int64_t most = (plan.H + plan.SDH - 1) / plan.SDH;
  constexpr int64_t rest = kScratchBytes - kConvMapBytes;
  for (int64_t bands = 1;; bands = std::max(bands + 1, bands * 5 / 4)) {
    plan.map.band = (most + std::min(bands, most) - 1) / std::min(bands, most);
    const double results = std::max(product(8, plan.SDW, padded(product(plan.map.band, plan.map.pitch))),
                                    padded(product(plan.map.band, plan.SDH, plan.W)) * padded(product(plan.M)));
    plan.fits = map_elements(plan.map) * product(element) <= kConvMapBytes && results * product(element) <= rest;
    if (plan.fits || plan.map.band <= 1) return;
  }
}

// Offsets in a map depend on its rows, so the taps are listed with (channel and plane, row, column) first.
struct Tap {
  int64_t plane, row, column, weight;
};

void set_offsets(ConvPlan& plan, const std::vector<std::vector<Tap>>& phases) {
  const int64_t rows = plan.map.band + plan.map.halo;
  plan.phases.resize(phases.size());
  for (size_t phase = 0; phase < phases.size(); ++phase) {
    PhaseTaps& to = plan.phases[phase];
    to.offset.reserve(phases[phase].size());
    to.weight.reserve(phases[phase].size());
    for (const Tap& tap : phases[phase]) {
      to.offset.push_back((tap.plane * rows + tap.row) * plan.map.pitch + tap.column);
      to.weight.push_back(tap.weight);
    }
  }
}

// Along one axis of the input gradient: the result e + j S uses tap k at source j + rel, where S divides e + P - k D.
struct Axis {
  struct Term {
    int64_t tap, rel;
  };
  std::vector<std::vector<Term>> terms;  // [S]
  int64_t least = 0, most = 0;           // of rel
};

Axis transposed_axis(int64_t S, int64_t P, int64_t D, int64_t K) {
  Axis axis;
  axis.terms.resize(S);
  bool first = true;
  for (int64_t e = 0; e < S; ++e)
    for (int64_t k = 0; k < K; ++k) {
      const int64_t shift = e + P - k * D;
      if (shift % S != 0) continue;
      const int64_t rel = shift / S;
      axis.terms[e].push_back({k, rel});
      axis.least = first ? rel : std::min(axis.least, rel);
      axis.most = first ? rel : std::max(axis.most, rel);
      first = false;
    }
  return axis;
}

}  // namespace

template <class T>
ConvPlan forward_plan(const Conv2d<T>& a) {
  const int64_t C = a.C / a.G, reach_h = (a.KH - 1) * a.DH, reach_w = (a.KW - 1) * a.DW;
  ConvPlan plan = {};
  plan.map = {C,
              a.H,
              a.W,
              a.SH,
              a.SW,
              std::min(a.SH, reach_h + 1),
              std::min(a.SW, reach_w + 1),
              a.PH,
              a.PW,
              0,
              reach_h / a.SH,
              a.OW + reach_w / a.SW,
              a.up};
  plan.M = a.OC / a.G, plan.H = a.OH, plan.W = a.OW, plan.SDH = plan.SDW = 1;
  plan.m_step = C * a.KH * a.KW, plan.group_step = plan.M * plan.m_step;
  choose_band(plan, sizeof(T));
  if (!plan.fits) return plan;
  std::vector<Tap> taps;
  taps.reserve(plan.m_step);
  for (int64_t c = 0; c < C; ++c)
    for (int64_t kh = 0; kh < a.KH; ++kh)
      for (int64_t kw = 0; kw < a.KW; ++kw) {
        const int64_t h = kh * a.DH, w = kw * a.DW;
        taps.push_back({(c * plan.map.planes_h + h % a.SH) * plan.map.planes_w + w % a.SW, h / a.SH, w / a.SW,
                        (c * a.KH + kh) * a.KW + kw});
      }
  set_offsets(plan, {taps});
  return plan;
}

template <class T>
ConvPlan input_grad_plan(const Conv2d<T>& a) {
  if (a.SH * a.SW > 16) return {};  // more phases than that have hardly a tap each
  const int64_t C = a.C / a.G, OC = a.OC / a.G;
  const Axis h = transposed_axis(a.SH, a.PH, a.DH, a.KH), w = transposed_axis(a.SW, a.PW, a.DW, a.KW);
  ConvPlan plan = {};
  plan.map = {
      OC, a.OH, a.OW, 1, 1, 1, 1, -h.least, -w.least, 0, h.most - h.least, (a.W + a.SW - 1) / a.SW + w.most - w.least,
      1};
  plan.M = C, plan.H = a.H, plan.W = a.W, plan.SDH = a.SH, plan.SDW = a.SW;
  plan.m_step = a.KH * a.KW, plan.group_step = OC * C * a.KH * a.KW;
  choose_band(plan, sizeof(T));
  if (!plan.fits) return plan;
  std::vector<std::vector<Tap>> phases;
  for (int64_t e = 0; e < a.SH; ++e)
    for (int64_t f = 0; f < a.SW; ++f) {
      std::vector<Tap>& taps = phases.emplace_back();
      for (int64_t oc = 0; oc < OC; ++oc)
        for (const auto& [kh, row] : h.terms[e])
          for (const auto& [kw, column] : w.terms[f])
            taps.push_back({oc, row - h.least, column - w.least, ((oc * C) * a.KH + kh) * a.KW + kw});
    }
  set_offsets(plan, phases);
  return plan;
}

template ConvPlan forward_plan(const Conv2d<float>&);
template ConvPlan forward_plan(const Conv2d<double>&);
template ConvPlan input_grad_plan(const Conv2d<float>&);
template ConvPlan input_grad_plan(const Conv2d<double>&);

}  // namespace tapegrad
