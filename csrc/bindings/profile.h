// A profile function for a step that is being recorded. Python's own calls back into Python for every event, which
// would take most of a recording's time; this one asks once for each function.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace py = pybind11;

namespace tapegrad {

// callback(frame, "call", None) once for each code object, callback(frame, "c_call", function) for C functions until it
// returns true for one: that method is never of interest. None: off.
void set_profile(const py::object& callback);

// While one lives, the profile function set here is off: what runs then is the recorder itself.
class ProfilePaused {
 public:
  ProfilePaused();
  ~ProfilePaused();
  ProfilePaused(const ProfilePaused&) = delete;
  ProfilePaused& operator=(const ProfilePaused&) = delete;

 private:
  py::object callback_;
};

}  // namespace tapegrad
