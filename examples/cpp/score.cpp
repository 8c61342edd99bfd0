// Scores pictures with a file of export.py: ./score detector.onnx image.png [more images ...]
//
// All that is needed is in the file: resizing, normalisation, networks, thresholds. So a picture's
// bytes go in as they are, and a verdict comes out. See README.md.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

namespace {

constexpr char kLayout[] = "2";  // of the file: what it takes, gives and says
constexpr char kForeign[] = "the detector was not written by this export.py: export it again";
using Shape = std::vector<std::int64_t>;

struct Image {
  std::int64_t height, width;  // in pixels
  std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels;  // height x width x 3, RGB

  Shape shape() const { return {1, height, width, 3}; }
};

struct Result {
  bool anomalous;
  float score, p_value;
  std::int64_t left, top;  // where the map is largest
};

// Returns a picture's bytes, RGB; grey becomes RGB, transparency is dropped.
Image read(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) throw std::runtime_error("no such file");
  if (stbi_is_16_bit(path.c_str())) throw std::runtime_error("it has 16 bits a channel, not 8");
  int width, height, channels;
  stbi_uc* pixels = stbi_load(path.c_str(), &width, &height, &channels, 3);
  if (!pixels) throw std::runtime_error(std::string("no picture: ") + stbi_failure_reason());
  return {height, width, {pixels, stbi_image_free}};
}

// An exported detector; what is wrong is thrown.
class Detector {
 public:
  explicit Detector(const std::string& path)
      : session_(env_, std::filesystem::path(path).c_str(), Ort::SessionOptions{}) {
    const Ort::ModelMetadata metadata = session_.GetModelMetadata();
    const auto text = [&metadata](const char* key) {
      Ort::AllocatorWithDefaultOptions allocator;
      const auto found = metadata.LookupCustomMetadataMapAllocated(key, allocator);
      return std::string(found ? found.get() : "");
    };
    try {
      if (text("layout") != kLayout) throw std::invalid_argument("layout");
      threshold_ = std::stof(text("about.threshold"));
    } catch (const std::logic_error&) {  // stof's, too
      throw std::runtime_error(kForeign);
    }
  }

  float threshold() const { return threshold_; }

  Result look(const Image& image) {
    check(image);
    const Shape shape = image.shape();
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = Ort::Value::CreateTensor<std::uint8_t>(
        memory, image.pixels.get(), image.height * image.width * 3, shape.data(), shape.size());
    const char* inputs[] = {"image"};
    const char* outputs[] = {"anomalous", "score", "p_value", "anomaly_map"};
    const auto found = session_.Run({}, inputs, &input, 1, outputs, 4);
    const float* map = values<float>(found[3], {1, image.height, image.width});
    const auto place = std::max_element(map, map + image.height * image.width) - map;
    return {*values<bool>(found[0], {1}), *values<float>(found[1], {1}),
            *values<float>(found[2], {1}), place % image.width, place / image.width};
  }

 private:
  // A graph without the resize, or of a fixed size, takes one size alone.
  void check(const Image& image) const {
    const auto wanted = session_.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    for (int side : {1, 2})
      if (wanted.at(side) > 0 && wanted[side] != image.shape()[side])
        throw std::runtime_error("the detector takes " + std::to_string(wanted[2]) + " x " +
                                 std::to_string(wanted[1]) + " pixels alone, width x height");
  }

  // Returns an output's values, once they are known to be what the file says.
  template <typename T>
  static const T* values(const Ort::Value& output, const Shape& shape) {
    const auto info = output.GetTensorTypeAndShapeInfo();
    if (info.GetElementType() != Ort::TypeToTensorType<T>::type || info.GetShape() != shape)
      throw std::runtime_error(kForeign);
    return output.GetTensorData<T>();
  }

  Ort::Env env_{ORT_LOGGING_LEVEL_FATAL};  // what goes wrong is thrown, too
  Ort::Session session_;
  float threshold_;
};

// Says in one line what is wrong; returns the exit code of a wrong input.
int fail(const std::string& what) {
  std::fprintf(stderr, "error: %s\n", what.substr(0, what.find('\n')).c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return fail("usage: score detector.onnx image [image ...]");
  std::string subject = argv[1];
  try {
    Detector detector(argv[1]);
    std::printf("%-9s %10s %6s %9s  %-12s %7s  image\n", "verdict", "score", "p", "threshold",
                "largest at", "ms");
    for (int i = 2; i < argc; ++i) {
      subject = argv[i];
      const Image image = read(subject);
      const auto begun = std::chrono::steady_clock::now();
      const Result found = detector.look(image);
      const std::chrono::duration<double, std::milli> spent =
          std::chrono::steady_clock::now() - begun;
      const std::string place = std::to_string(found.left) + "," + std::to_string(found.top);
      std::printf("%-9s %10.6g %6.3f %9.4g  %-12s %7.1f  %s\n",
                  found.anomalous ? "anomalous" : "good", found.score, found.p_value,
                  detector.threshold(), place.c_str(), spent.count(), argv[i]);
    }
  } catch (const std::exception& error) {
    return fail(subject + ": " + error.what());
  }
  return 0;
}
