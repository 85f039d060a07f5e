// Which memory tensors lie in, as the recorder of the compiled tape (tapegrad/compiled/record.py) names it.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {
// where() of watch.py: the line of the nearest frame that runs the user's code, the outermost if none does. What
// is_users(frame) and place(frame) answer is kept, by code object and instruction; code objects are kept alive for it.
py::object user_line(py::handle is_users, py::handle place);

void bind_slots(py::module_& m);
}  // namespace tapegrad
