// A lifecycle node that classifies images, at a lambda that can be changed while it runs.
#include <algorithm>
#include <cmath>
#include <floats_rt/floats_rt.hpp>
#include <memory>
#include <optional>
#include <rclcpp/rclcpp.hpp>
#include <rclcpp_components/register_node_macro.hpp>
#include <rclcpp_lifecycle/lifecycle_node.hpp>
#include <sensor_msgs/image_encodings.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <string>
#include <unordered_map>
#include <vector>
#include <vision_msgs/msg/classification.hpp>

namespace floats_edge {

using sensor_msgs::msg::Image;
using vision_msgs::msg::Classification;
using Return = rclcpp_lifecycle::node_interfaces::LifecycleNodeInterface::CallbackReturn;

const std::unordered_map<std::string, floats_rt::Backend> BACKENDS{
    {"automatic", floats_rt::Backend::automatic},
    {"onnxruntime", floats_rt::Backend::onnxruntime},
    {"tensorrt", floats_rt::Backend::tensorrt},
};

// The pixels of a message; nothing if they are not of 8 bits, or fewer than it says.
std::optional<floats_rt::ImageView> pixels(const Image& image) {
  using floats_rt::Colours;
  namespace encodings = sensor_msgs::image_encodings;
  static const std::unordered_map<std::string, std::pair<Colours, std::size_t>> kColours{
      {encodings::RGB8, {Colours::rgb, 3}},   {encodings::BGR8, {Colours::bgr, 3}},
      {encodings::MONO8, {Colours::grey, 1}}, {encodings::RGBA8, {Colours::rgba, 4}},
      {encodings::BGRA8, {Colours::bgra, 4}},
  };
  const auto found = kColours.find(image.encoding);
  if (found == kColours.end() || image.height == 0) return std::nullopt;
  const auto [colours, channels] = found->second;
  const std::size_t row = std::size_t{image.width} * channels;
  if (image.step < row || image.data.size() < std::size_t{image.height - 1} * image.step + row) return std::nullopt;
  return floats_rt::ImageView{image.data.data(), image.height, image.width, colours, image.step};
}

// All callbacks are of the node's own group, of which one runs at a time.
class Classifier : public rclcpp_lifecycle::LifecycleNode {
 public:
  explicit Classifier(const rclcpp::NodeOptions& options) : LifecycleNode("classifier", options) {
    declare_parameter("bundle", DEFAULT_BUNDLE);
    declare_parameter("backend", "automatic");
    rcl_interfaces::msg::ParameterDescriptor lambda;
    lambda.description = "0: best on clean images, 1: most robust. Whoever sets it sets how robust the network is.";
    lambda.floating_point_range.resize(1);
    lambda.floating_point_range[0].to_value = 1;
    declare_parameter("lambda", double{DEFAULT_LAMBDA}, lambda);
    on_set_ = add_on_set_parameters_callback([this](const auto& parameters) { return set(parameters); });
  }

 private:
  Return on_configure(const rclcpp_lifecycle::State&) override try {
    floats_rt::Options options;
    const std::string backend = get_parameter("backend").as_string();
    const auto chosen = BACKENDS.find(backend);
    if (chosen == BACKENDS.end()) {
      RCLCPP_ERROR(get_logger(), "backend is %s; it can be automatic, onnxruntime or tensorrt", backend.c_str());
      return Return::FAILURE;
    }
    options.backend = chosen->second;
    model_.emplace(floats_rt::Model::load(get_parameter("bundle").as_string(), options));
    model_->set_lambda(static_cast<float>(get_parameter("lambda").as_double()));
    logits_.resize(model_->output().size());
    results_ = create_publisher<Classification>("classification", rclcpp::SensorDataQoS());
    return Return::SUCCESS;
  } catch (const floats_rt::Error& error) {
    RCLCPP_ERROR(get_logger(), "%s", error.what());
    model_.reset();
    return Return::FAILURE;
  }

  Return on_activate(const rclcpp_lifecycle::State& state) override {
    images_ = create_subscription<Image>("image", rclcpp::SensorDataQoS(),
                                         [this](Image::ConstSharedPtr image) { classify(*image); });
    return LifecycleNode::on_activate(state);
  }

  Return on_deactivate(const rclcpp_lifecycle::State& state) override {
    images_.reset();
    return LifecycleNode::on_deactivate(state);
  }

  Return on_cleanup(const rclcpp_lifecycle::State&) override {
    results_.reset();
    model_.reset();
    return Return::SUCCESS;
  }

  Return on_shutdown(const rclcpp_lifecycle::State& state) override {
    images_.reset();
    return on_cleanup(state);
  }

  // Lambda is asked for before ROS keeps the parameter, so that what the bundle does not serve is refused. The callback
  // for afterwards, add_post_set_parameters_callback, can refuse nothing, and ROS 2 Humble has none.
  rcl_interfaces::msg::SetParametersResult set(const std::vector<rclcpp::Parameter>& parameters) try {
    rcl_interfaces::msg::SetParametersResult result;
    result.successful = true;
    for (const auto& parameter : parameters)
      if (parameter.get_name() == "lambda" && model_) model_->request_lambda(static_cast<float>(parameter.as_double()));
    return result;
  } catch (const floats_rt::Error& error) {  // the bundle does not serve it
    rcl_interfaces::msg::SetParametersResult result;
    result.reason = error.what();
    return result;
  }

  void classify(const Image& image) try {
    const auto view = pixels(image);
    if (!view) {
      RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 5000, "left out: an image of encoding %s and %zu bytes",
                           image.encoding.c_str(), image.data.size());
      return;
    }
    model_->infer(*view, logits_);
    results_->publish(classification(image.header));
  } catch (const floats_rt::Error& error) {
    RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 5000, "%s", error.what());
  }

  // Every class with its probability, the likeliest first.
  Classification classification(const std_msgs::msg::Header& header) const {
    Classification result;
    result.header = header;
    const float largest = *std::max_element(logits_.begin(), logits_.end());
    double sum = 0;
    for (const float logit : logits_) sum += std::exp(double{logit} - largest);
    for (std::size_t i = 0; i < logits_.size(); ++i) {
      vision_msgs::msg::ObjectHypothesis hypothesis;
      hypothesis.class_id = model_->labels()[i];
      hypothesis.score = std::exp(double{logits_[i]} - largest) / sum;
      result.results.push_back(hypothesis);
    }
    std::stable_sort(result.results.begin(), result.results.end(),
                     [](const auto& a, const auto& b) { return a.score > b.score; });
    return result;
  }

  std::optional<floats_rt::Model> model_;
  std::vector<float> logits_;
  rclcpp_lifecycle::LifecyclePublisher<Classification>::SharedPtr results_;
  rclcpp::Subscription<Image>::SharedPtr images_;
  OnSetParametersCallbackHandle::SharedPtr on_set_;
};

}  // namespace floats_edge

RCLCPP_COMPONENTS_REGISTER_NODE(floats_edge::Classifier)
