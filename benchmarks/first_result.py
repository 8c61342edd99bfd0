"""What a program does that scores one picture: in a fresh process, whose imports are no others.

`python3 -m benchmarks.first_result FILE PICTURE RUNTIME PRECISION THREADS`; the runtime of a
detector.safetensors does not matter.
"""

import sys

from benchmarks.memory import peak_memory


def main(file: str, picture: str, runtime: str, precision: str, threads: str) -> None:
    """Score a picture; print its score, then the peak of memory in bytes."""
    if file.endswith(".safetensors"):
        from prediction.predictor import load_detector

        detector = load_detector(file, "cpu", precision)  # threads are OMP_NUM_THREADS
    else:
        from deployment.runtimes import load_exported

        detector = load_exported(
            file, runtime, "cpu", precision or None, int(threads), trusted=True
        )
    print(detector.predict(picture).score, flush=True)
    print(peak_memory())


if __name__ == "__main__":
    main(*sys.argv[1:])
